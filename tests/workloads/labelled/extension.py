"""A compiled function with the same loop inside: `--what c|cython`, with the GIL (`--keeps yes`) or without. scripts/eval/verdicts/modules.py builds the modules."""
import pair

KEEPS = pair.flag("keeps", "yes") == "yes"
if pair.flag("what", "c") == "c":
    import spin_c as spin
else:
    import spin_cython as spin

call = spin.keeping if KEEPS else spin.releasing


def unit(_):
    call(2000000)


pair.run(unit)
