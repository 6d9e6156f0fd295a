"""Log-linear histograms: times from 1 ns to 73 minutes, each with an error below 0.8 %, in 36 KB, whatever their number.

    bin   0 .. 127      one ns each
    bin 128 .. 255      128 .. 255 ns, one ns each
    bin 256 .. 383      256 .. 511 ns, two ns each, and so on: 128 bins an octave

Adding is a few instructions and no allocation. The largest and least value are kept exactly.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

__all__ = ["Histogram"]


cdef int64_t _upper(int bin_) noexcept nogil:
    """The largest time that falls into a bin."""
    cdef int octave = bin_ // HIST_SUB - 1
    if octave <= 0:
        return bin_
    return (<int64_t>(bin_ % HIST_SUB + HIST_SUB + 1) << octave) - 1


cdef class Histogram:
    """Times in nanoseconds, counted in bins.

    `add(ns)`, `percentile(share)`, `count`, `least`, `most`, `mean`; `histogram += other` adds another one's counts.
    """

    def add(self, int64_t ns):
        """Count one time; a negative one counts as 0."""
        hist_add(&self.h, ns)

    @property
    def count(self):
        return self.h.count

    @property
    def least(self):
        """The shortest, ns; None before the first."""
        return self.h.least if self.h.count else None

    @property
    def most(self):
        """The longest, ns, exactly; None before the first."""
        return self.h.most if self.h.count else None

    @property
    def mean(self):
        return self.h.sum / self.h.count if self.h.count else None

    def percentile(self, double share):
        """The time, ns, that `share` (0 to 100) percent of all do not exceed, at most 0.8 % too large; None if empty."""
        cdef uint64_t wanted, seen = 0
        cdef int i
        cdef double exact
        if not 0 <= share <= 100:
            raise ValueError(f"share is {share}: a percentage is from 0 to 100")
        if self.h.count == 0:
            return None
        exact = self.h.count * share / 100
        wanted = <uint64_t>exact
        if wanted < exact or wanted == 0:
            wanted += 1
        for i in range(HIST_BINS):
            seen += self.h.bin[i]
            if seen >= wanted:
                return min(max(_upper(i), self.h.least), self.h.most)
        return self.h.most

    def bins(self):
        """(largest time of the bin in ns, count) of every bin that is not empty."""
        return [(_upper(i), self.h.bin[i]) for i in range(HIST_BINS) if self.h.bin[i]]

    def since(self, Histogram earlier):
        """What was added since `earlier`, a copy of this histogram then. Its least and most are bounds of bins."""
        cdef Histogram out = Histogram()
        cdef int i
        for i in range(HIST_BINS):
            if self.h.bin[i] > earlier.h.bin[i]:
                out.h.bin[i] = self.h.bin[i] - earlier.h.bin[i]
                out.h.count += out.h.bin[i]
                out.h.most = min(_upper(i), self.h.most)
                if out.h.least == 0:
                    out.h.least = out.h.most
        out.h.sum = self.h.sum - earlier.h.sum
        return out

    def clear(self):
        memset(&self.h, 0, sizeof(Hist))

    def __iadd__(self, Histogram other):
        cdef int i
        if other.h.count == 0:
            return self
        for i in range(HIST_BINS):
            self.h.bin[i] += other.h.bin[i]
        if self.h.count == 0 or other.h.least < self.h.least:
            self.h.least = other.h.least
        self.h.most = max(self.h.most, other.h.most)
        self.h.count += other.h.count
        self.h.sum += other.h.sum
        return self
