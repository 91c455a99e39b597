"""Number crunching in pure Python: the number of primes in a range."""
import pair


def unit(_):
    found = 0
    for n in range(3, 4000, 2):
        for d in range(3, int(n ** 0.5) + 1, 2):
            if n % d == 0:
                break
        else:
            found += 1
    return found


pair.run(unit)
