# From an ANN to the table of docs/results.md, "Without the images": synthetic images, files converted from them alone and
# spike-learnt, each verified in Lava on 20 images, all measured on the test images. What is there is not made again.
# Learning is repeated with every seed, synthetic images included; the other neurons are made with the first.
#
#   make -f benchmarks/retention.mk DATA=mnist ANN=ann
#   make -f benchmarks/retention.mk DATA=brain-mri ANN=brain SEEDS=5
#
# `make setup` first; $GASCNN_DATA says where the data sets lie. OUT/table.md is the table, OUT/verified/ what Lava said.
DATA   ?= mnist
ANN    ?= ann
SEEDS  ?= 10 11 12
OUT    ?= retention-$(DATA)
GASCNN ?= .venv/bin/gascnn
IMAGES ?= 20

ifeq ($(DATA),brain-mri)
SYNTHESIS ?= --images 384 --batch-size 64 --iterations 200
LEARNING  ?= --batch-size 16 --epochs 10 --learning-rate 1e-4
STEPS     ?= 16
UNLEARNT  ?= 8
else
SYNTHESIS ?=
LEARNING  ?=
STEPS     ?= 5 6
UNLEARNT  ?= 16
endif

EXPORT := $(GASCNN) export $(ANN) --target lava
FIRST  := $(firstword $(SEEDS))
FILES  := $(foreach t,$(STEPS),$(OUT)/zero-T$(t)-s$(FIRST).net $(foreach s,$(SEEDS),$(OUT)/learnt-T$(t)-s$(s).net)) \
            $(foreach t,$(UNLEARNT),$(OUT)/zero-T$(t)-s$(FIRST).net) $(OUT)/subtract-T32-s$(FIRST).net $(OUT)/sdnn-s$(FIRST).net

.PHONY: all
.DELETE_ON_ERROR:
.SECONDARY:
all: $(OUT)/table.md $(FILES:$(OUT)/%.net=$(OUT)/verified/%.json)

$(OUT)/synthetic-s%/images.npz:
	$(GASCNN) synthesise $(ANN) $(SYNTHESIS) --seed $* --resume -o $(@D)

define for_seed
$(OUT)/zero-T%-s$(1).net: $(OUT)/synthetic-s$(1)/images.npz
	$(EXPORT) --data $$(<D) --reset zero --readout membrane --steps $$* -o $$@
$(OUT)/learnt-T%-s$(1).net: $(OUT)/zero-T%-s$(1).net
	$(GASCNN) spike-learn $$< --teacher $(ANN) --data $(OUT)/synthetic-s$(1) --seed $(1) $(LEARNING) --resume -o $$@
$(OUT)/subtract-T%-s$(1).net: $(OUT)/synthetic-s$(1)/images.npz
	$(EXPORT) --data $$(<D) --reset subtract --steps $$* -o $$@
$(OUT)/sdnn-s$(1).net: $(OUT)/synthetic-s$(1)/images.npz
	$(EXPORT) --data $$(<D) --neuron sdnn -o $$@
endef
$(foreach s,$(SEEDS),$(eval $(call for_seed,$(s))))

$(OUT)/verified/%.json: $(OUT)/%.net
	@mkdir -p $(@D)
	$(GASCNN) verify $< --backend lava --data $(DATA) --limit $(IMAGES) --json $@

$(OUT)/table.md: $(FILES)
	$(GASCNN) bench retention $(FILES) --ann $(ANN) --data $(DATA) --json $(OUT)/table.json --markdown $@
