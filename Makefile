PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# mkdocs-material says at each build that it has a successor.
export NO_MKDOCS_2_WARNING := 1
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install demo study paper test test-waterbirds test-demo bench lint docs fuzz generated pictures waterbirds pretrain clean

help: ## say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 26

install: $(INSTALLED) ## a virtual environment in .venv with everything

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --system-certs --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[cams,dicom,docs,download,duplicates,dvc,dvclive,heif,networks,onnx,parquet,tensorboard,test]'
	@touch $@

demo: $(INSTALLED) ## run the whole pipeline on the demo dataset
	dvc repro
	@echo
	@mac inspect data/metrics.json
	@echo
	@echo "Results: data/report.html (open it), data/retrained/ (the robust classifier), data/masks.h5 (what ERM looks at), data/metrics.json."
	@echo "Next:    edit retrain.alpha or retrain.beta in params.yaml and run 'dvc repro' again (. .venv/bin/activate first)."

# If a run fails, the others go on: xargs stops at once only for status 255, which is DVC's.
study: RUN := data/study/dvc.yaml:study
study: $(INSTALLED) ## everything from ERM on with five seeds, JOBS=2 runs side by side, and the methods compared over them
	dvc repro prepare
	dvc stage list --name-only data/study/dvc.yaml | sed -n 's/.*study-run@//p' | \
		xargs -P $(or $(JOBS),2) -I{} sh -c 'dvc --wait-for-lock repro -s $(RUN)-train@$$1 $(RUN)-run@$$1 || exit 1' - {}
	dvc repro data/study/dvc.yaml
	@echo
	@echo "Results: data/study/study.json, data/study/runs.csv (every run), data/study/runs.svg (open it)."

# It replaces params.yaml; 'git restore params.yaml' brings the demo's back.
paper: $(INSTALLED) ## the paper's Table 2, three ERM runs on a GPU: make paper DATASET=waterbirds ROOT=<folder>
	@test -n "$(DATASET)" -a -n "$(ROOT)" || { echo "usage: make paper DATASET=<waterbirds, celeba, metashift> ROOT=<folder of the dataset>"; exit 2; }
	mac init $(DATASET) --force --set 'dataset.root="$(abspath $(ROOT))"' --set 'study.seeds=[0, 1, 2]'
	mac doctor
	dvc repro data/study/dvc.yaml

test: lint ## lint, types, layers, and the whole test suite; JOBS=8 runs eight tests side by side
	pytest -n $(or $(JOBS),2) --dist loadfile

test-waterbirds: $(INSTALLED) ## the tests on real images with all of Waterbirds: half an hour
	MAC_REAL_IMAGES=all pytest tests/end_to_end/test_real_images.py

test-demo: $(INSTALLED) ## the tests of the demo with all its pixels and epochs: half an hour
	MAC_DEMO=whole pytest tests/end_to_end/test_demo.py

bench: $(INSTALLED) ## how fast it is: what has a goal, measured, and written to benchmarks/RESULTS.md; 20 minutes on two cores
	python -m benchmarks --device $(or $(DEVICE),auto)

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	mkdocs build --strict

docs: $(INSTALLED) ## the pages of docs/ as a site that needs no network
	mkdocs build --strict
	@echo "site/index.html (open it)"

generated: $(INSTALLED) ## what is made from the code: dvc.yaml, params.yaml, docs/reference.md, the table of stages in docs/how-it-works.md
	python -m stages.generate

pictures: $(INSTALLED) ## the pictures of docs/, from the demo's artefacts; needs chromium
	mac inspect data/masks.h5 --sort confidence --grid 6x2 --out docs/grid.png
	mac inspect data/masks.h5 --image 3 --out docs/row3.png
	mac explain data/raw/demo/waterbird/waterbird_02107.jpg --out docs/explain.png
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1280,950 --screenshot=docs/report.png data/report.html

# The paper's dataset with a small backbone; about half an hour on two cores. The result is a DVC experiment named waterbirds.
waterbirds: $(INSTALLED) ## the pipeline on Waterbirds: make waterbirds WATERBIRDS=<folder> WEIGHTS=<file>
	@test -n "$(WATERBIRDS)" -a -n "$(WEIGHTS)" || { echo "usage: make waterbirds WATERBIRDS=<folder of metadata.csv> WEIGHTS=<mobilenet_v2 weights: a file, or IMAGENET1K_V2>"; exit 2; }
	@dvc exp remove waterbirds > /dev/null 2>&1 || true  # an earlier one; what it computed stays in the cache
	dvc exp run --name waterbirds \
	  -S dataset.name=waterbirds -S 'dataset.root="$(abspath $(WATERBIRDS))"' -S dataset.stored_size=256 -S dataset.input_size=224 \
	  -S model.architecture=mobilenet_v2 -S 'model.weights="$(if $(wildcard $(WEIGHTS)),$(abspath $(WEIGHTS)),$(WEIGHTS))"' \
	  -S train.epochs=6 -S train.lr=0.002 -S train.batch_size=32 -S train.weight_decay=0.001 -S train.schedule=constant \
	  -S saliency.top_k=15000 -S features.draws=2 -S features.precision=auto \
	  -S retrain.alpha=2 -S retrain.beta=3 -S retrain.average=1 -S retrain.standardize=false -S retrain.class_weights=none $(SET)
	@mac inspect data/metrics.json

fuzz: $(INSTALLED) ## change artefacts and datasets, 2,000 of each of 24 kinds, and read them; hours
	python -m tests.fuzz --count $(or $(COUNT),2000) $(KINDS)

pretrain: $(INSTALLED) ## make the demo's starting weights again
	python -m pipeline.demo.pretrain pipeline/demo/weights/shufflenet_v2_x0_5-silhouettes.safetensors

clean: ## remove the virtual environment, the site and the tools' caches
	rm -rf site .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
