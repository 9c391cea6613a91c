# From a data set to the table of docs/chain.md: one ANN, and spiking networks converted and spike-learnt from it with real
# images, with a GAN's, with images from the ANN alone, and with both kinds of made images; each verified in Lava, all
# measured on the same test images. What is there is not made again.
#
#   make -f benchmarks/sources.mk DATA=brain-mri
#
# `make setup` first; $GASCNN_DATA says where the data sets lie. OUT/table.md is the table; OUT/both, OUT/gan and
# OUT/dirichlet are runs of `gascnn chain`, whose preset decides everything; real images are handled alike, and as many
# of them are learnt from.
DATA   ?= brain-mri
PRESET ?= small
OUT    ?= sources-$(DATA)
GASCNN ?= .venv/bin/gascnn

CHAIN  := $(GASCNN) chain --data $(DATA) --preset $(PRESET)
ANN    := $(OUT)/both/ann
# What the chain's preset told its own steps, for the real images.
told    = $$(sed -n 's/.*"gascnn $(1) \(.*\) $(2).*/\1/p' $(OUT)/both/manifest.json)
KINDS  := real gan dirichlet both
FILES  := $(foreach k,$(KINDS),$(OUT)/$(k)-converted.net $(OUT)/$(k)-learnt.net)

.PHONY: all
.DELETE_ON_ERROR:
.SECONDARY:
all: $(OUT)/table.md $(OUT)/real/verify.json

$(OUT)/both.done:
	$(CHAIN) --synthetic both -o $(OUT)/both
	touch $@

$(OUT)/gan.done: $(OUT)/both.done
	$(CHAIN) --synthetic gan --use train=$(ANN) --use sample=$(OUT)/both/synthetic-gan --skip report -o $(OUT)/gan
	touch $@

$(OUT)/dirichlet.done: $(OUT)/both.done
	$(CHAIN) --synthetic dirichlet --use train=$(ANN) --use synthesise=$(OUT)/both/synthetic-dirichlet --skip report -o $(OUT)/dirichlet
	touch $@

$(OUT)/real/converted.net: $(OUT)/both.done
	@mkdir -p $(@D)
	$(GASCNN) convert $(ANN) --data $(DATA) $(call told,convert .* --data-free,--seed) -o $(@D)/snn
	$(GASCNN) export $(@D)/snn --target lava --data $(DATA) -o $@

$(OUT)/real/learnt.net: $(OUT)/real/converted.net
	$(GASCNN) spike-learn $< --teacher $(ANN) --data $(DATA) $(call told,spike-learn .* --data synthetic-both,--seed) --resume -o $@

$(OUT)/real/verify.json: $(OUT)/real/learnt.net
	$(GASCNN) verify $< --backend lava --data $(DATA) --limit $(call told,verify .* --limit,--json) --json $@

$(OUT)/real-%.net: $(OUT)/real/%.net
	cp $< $@

define of_chain
$(OUT)/$(1)-%.net: $(OUT)/$(1).done
	cp $(OUT)/$(1)/$$*.net $$@
endef
$(foreach k,gan dirichlet both,$(eval $(call of_chain,$(k))))

$(OUT)/table.md: $(FILES)
	$(GASCNN) bench retention $(FILES) --ann $(ANN) --against real-learnt.net --data $(DATA) --json $(OUT)/table.json \
	  --markdown $@
