# make quickstart [DATA=path]   MovieLens-100K in, trained models and recommendations out
# make test                     the test suite
# Both work alone on a machine with Python 3.11, gcc, make and git: they create .venv and install into it.
#
# On Linux pip's default torch brings gigabytes of CUDA. TORCH_INDEX=address, with the address of PyTorch's index of
# CPU builds (pytorch.org, "Get started"), takes that build instead.

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
KERNELS := $(wildcard $(foreach room,_kernels datasets,sparsefm/$(room)/*.pyx sparsefm/$(room)/*.h))
BUILD := setup.py setup.cfg pyproject.toml constraints.txt
# the build's own environment is pinned like ours
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: quickstart movielens test check lint types notebooks slow docs wheel min-versions bench leaderboard clean

# MovieLens-100K, all of it, lies inside one small wheel. It may not be redistributed, so it is fetched.
MOVIELENS := data/recbole-1.2.1-py3-none-any.whl

quickstart: $(VENV)/base $(if $(DATA),,movielens)
	$(BIN)/python -m sparsefm quickstart $(if $(DATA),--data "$(DATA)",$$(test -f $(MOVIELENS) && echo --data $(MOVIELENS)))

movielens: | $(VENV)/python
	@test -f $(MOVIELENS) || $(PIP) download -q --no-deps -d data recbole==1.2.1 || echo "MovieLens-100K could not be fetched."

test: $(VENV)/test
	$(BIN)/python -m pytest -m "not slow"

$(VENV)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'sparsefm needs Python 3.11: make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) install -q --index-url $(TORCH_INDEX) torch)
	touch $@

# Each set holds the one before, and installing builds the kernels: the larger set counts as the smaller ones too.
$(VENV)/base: $(VENV)/python $(BUILD) $(KERNELS)
	$(PIP) install -q -e ".[plot]"
	touch $@

$(VENV)/test: $(VENV)/python $(BUILD) $(KERNELS)
	$(PIP) install -q -e ".[arrow,plot,test]"
	touch $(VENV)/base $@

$(VENV)/check: $(VENV)/python $(BUILD) $(KERNELS)
	$(PIP) install -q -e ".[arrow,data,docs,lint,notebook,plot,test,triton]"
	touch $(VENV)/base $(VENV)/test $@

check: $(VENV)/check test lint types slow docs wheel min-versions

lint: $(VENV)/check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint sparsefm/_kernels sparsefm/datasets  # it looks for pycodestyle there

types: $(VENV)/check
	$(BIN)/mypy

slow: $(VENV)/check movielens
	$(BIN)/python -m pytest -m slow

notebooks: $(VENV)/check
	$(BIN)/python -m pytest -m slow tests/test_notebooks.py

# The source archive makes the wheel; the wheel is installed where no checkout is in reach.
wheel: $(VENV)/check
	rm -rf dist && $(BIN)/python -m build -q --outdir dist .
	rm -rf build/wheel && mkdir -p build/wheel && $(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check install -q dist/*-abi3-*.whl pytest hypothesis
	cp tests/test_kernels.py tests/test_text.py tests/reference.py build/wheel/
	cd build/wheel && venv/bin/python -m pytest -p no:cacheprovider -c $(CURDIR)/pyproject.toml --rootdir=. test_kernels.py test_text.py
	build/wheel/venv/bin/python -c "import pathlib, sparsefm, sparsefm.nn; folder = pathlib.Path(sparsefm.__file__).parent; size = sum(f.stat().st_size for f in folder.rglob('*.so')); print(f'kernels: {size / 1e6:.1f} MB in the wheel'); assert size < 6e6"

# The lowest versions setup.cfg claims, with no torch in reach.
min-versions: wheel
	rm -rf build/min && mkdir -p build/min && $(PYTHON) -m venv build/min/venv
	PIP_CONSTRAINT=$(CURDIR)/constraints-min.txt build/min/venv/bin/python -m pip --disable-pip-version-check install -q numpy scipy pandas scikit-learn safetensors pytest hypothesis
	build/min/venv/bin/python -m pip --disable-pip-version-check install -q --no-deps dist/*-abi3-*.whl
	cp -r tests datasets docs notebooks README.md build/min/
	cd build/min && venv/bin/python -m pytest -p no:cacheprovider -c $(CURDIR)/pyproject.toml --rootdir=. -m "not slow" tests

# The pages, the notebooks and the benchmarks' page, put together; build/docs/html/index.html is the way in.
docs: $(VENV)/check
	rm -rf build/docs && mkdir -p build/docs && cp -r docs build/docs/source && cp -r notebooks build/docs/source/
	cp benchmarks/README.md build/docs/source/benchmarks.md && cp CHANGELOG.md build/docs/source/changelog.md
	$(BIN)/python -m sphinx -q -W --keep-going -j auto build/docs/source build/docs/html

bench: $(VENV)/peers
	$(BIN)/python benchmarks/run.py

# Our defaults beside tuned peers on all data at hand, as a table and a plot in out/leaderboard; DATA=folder has more data.
leaderboard: $(VENV)/peers movielens
	$(BIN)/python benchmarks/leaderboard.py --out out/leaderboard $(if $(DATA),--data "$(DATA)")

$(VENV)/peers: $(VENV)/check
	for peer in catboost implicit libmf lightfm-next modern-fm myfm xlearn; do $(PIP) install -q $$peer || echo "$$peer is left out"; done
	touch $@

clean:
	rm -rf $(VENV) build dist out *.egg-info $(foreach room,_kernels datasets,sparsefm/$(room)/*.c sparsefm/$(room)/*.so)
