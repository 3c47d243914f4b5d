# The gates. CI runs the same ones.

# lint, format, types, floors
check:
    ruff check .
    ruff format --check .
    pyrefly check
    lint-imports

# mend what can be mended by itself
fix:
    ruff check --fix .
    ruff format .

# the default tests
test *arguments:
    pytest {{arguments}}

# the long tests too; real data is found through RESNETKIT_TEST_DATA
slow *arguments:
    pytest -m "slow and not gpu" {{arguments}}
