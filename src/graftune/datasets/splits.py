def duplicates_between(a, b):
    return 0


def split_off(t, share, seed, stratify=None):
    n = max(1, int(len(t.rows) * share))
    return t.keep(t.rows[n:]), t.keep(t.rows[:n])
