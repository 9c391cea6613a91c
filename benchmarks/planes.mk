# The two planes of docs/gan.md measured against each other: a GAN of each, beside the same ResNet and with the same
# seed, as many images as there are training images, and what `gascnn bench synthetic` says of them. What is there is
# not made again.
#
#   make -f benchmarks/planes.mk DATA=brain-mri ANN=sources-brain-mri/both/ann FEATURES_GAN=sources-brain-mri/both/gan
#
# ANN is a bundle of `gascnn train`; FEATURES_GAN, a GAN of plane `features` beside it, is trained if it is not there.
# JUDGE is a network of its own, whose features are compared: those of ANN would flatter the images made beside it.
DATA    ?= brain-mri
ANN     ?= ann
OUT     ?= planes-$(DATA)
GASCNN  ?= .venv/bin/gascnn
PRESET  ?= small
IMAGES  ?= 391
FRAMING ?= foreground
JUDGE   ?= $(OUT)/judge
FEATURES_GAN ?= $(OUT)/features-gan

GAN := $(GASCNN) gan train $(ANN) --data $(DATA) --preset $(PRESET) --resume
PLANES := features image

.PHONY: all
.DELETE_ON_ERROR:
.SECONDARY:
all: $(PLANES:%=$(OUT)/%.md)

$(JUDGE)/model.json:
	$(GASCNN) train --data $(DATA) --preset small --framing $(FRAMING) --seed 1 --resume -o $(@D)

$(FEATURES_GAN)/model.json:
	$(GAN) --set plane=features -o $(@D)

$(OUT)/image-gan/model.json:
	$(GAN) --set plane=image -o $(@D)

$(OUT)/features/images.json: $(FEATURES_GAN)/model.json
	$(GASCNN) gan sample $(<D) --data $(DATA) --images $(IMAGES) --fewer -o $(@D)

$(OUT)/image/images.json: $(OUT)/image-gan/model.json
	$(GASCNN) gan sample $(<D) --data $(DATA) --images $(IMAGES) --fewer -o $(@D)

$(OUT)/%.md: $(OUT)/%/images.json $(JUDGE)/model.json
	$(GASCNN) bench synthetic $(<D) --data $(DATA) --features $(JUDGE) --preset small --markdown $@ --json $(@:.md=.json) \
	  --pairs $(@:.md=.png)
