"""The C headers say the same in the form for every compiler and processor as in the form of this one.

FASTTCP_PORTABLE forces the former; CI also builds and tries the whole package with it.
"""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import fasttcp

PACKAGE = Path(fasttcp.__file__).parent
PROGRAM = r"""
#include <stdio.h>
#include "core/tags.h"
#include "core/mul128.h"
#include "packets/checksum.h"
#include "packets/layouts.h"
#include "packets/words.h"

static uint64_t state = 1;
static uint64_t chance(void)
{
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

int main(void)
{
    static struct { uint64_t words[64]; } __attribute__((aligned(64))) line;
    const uint8_t *bytes = (const uint8_t *)&line;
    for (int round = 0; round < 2000; round++) {
        /* Few different tags, so that many are equal; each as likely to be empty. */
        for (int i = 0; i < 64; i++) line.words[i] = chance() & (round & 1 ? ~0ull : 0x0303030303030303ull);
        prefetch_read(bytes);
        prefetch_write(bytes);
        uint64_t a = chance(), b = chance();
        wide_t p = mul64(a, b), q = dot128(mul64(a, a), p, a, mul64(b, b), b);
        printf("%x %u %u ", (unsigned)tags_match(bytes, (uint8_t)(a & 3)), tags_count(bytes), lowest_bit((uint32_t)a | 1u << 31));
        printf("%x %llx ", swap32((uint32_t)a), (unsigned long long)swap64(b));
        printf("%llx %llx %llx ", (unsigned long long)p.hi, (unsigned long long)q.hi, (unsigned long long)q.lo);
        uint64_t c = round & 2 ? ~0ull : chance(), d = chance(), e = ~chance();
        uint64_t sums[] = { sum_ahead(bytes, (uint32_t)(b % 449)), sum_three(a, b, c), sum_four(a, b, c, d),
                            sum_five(a, b, c, d, e), sum_number((uint32_t)a & 0x1FFFF) };
        for (int i = 0; i < 5; i++) printf("%x ", (unsigned)(sums[i] % 0xFFFF));
        store64(&c, two_numbers(a));
        store32(&d, two_fields((uint32_t)a & 0xFFFF, (uint32_t)b & 0xFFFF));
        printf("%llx %llx %llx ", (unsigned long long)net64(a), (unsigned long long)c, (unsigned long long)d);
        printf("%x %x ", first_number(a), lower_first((uint32_t)b));
        printf("%d\n", (int)(layout_of((uint32_t)a) - LAYOUTS) - (int)((uint32_t)a >> 28));
    }
#if defined(FASTTCP_TAGS_SSE2) || defined(FASTTCP_TAGS_NEON)
    fprintf(stderr, "vectors");
#else
    fprintf(stderr, "portable");
#endif
    return 0;
}
"""


def run(folder, *defined):
    """What the program prints, and which form of the tags it has."""
    cc = (sysconfig.get_config_var("CC") or "cc").split()[-1]
    if shutil.which(cc) is None:
        pytest.skip(f"no C compiler: {cc} is not there")
    source, binary = folder / "forms.c", folder / f"forms{len(defined)}"
    source.write_text(PROGRAM)
    flags = ["-O2", "-Wall", "-Werror", "-I", PACKAGE, "-I", PACKAGE / "core", *defined]
    subprocess.run([cc, *flags, source, "-o", binary], check=True)
    done = subprocess.run([binary], check=True, capture_output=True, text=True)
    return done.stdout, done.stderr


def test_portable_headers_agree_with_those_of_this_machine(tmp_path):
    here, _ = run(tmp_path)
    anywhere, form = run(tmp_path, "-DFASTTCP_PORTABLE")
    assert form == "portable"
    assert here == anywhere
    assert len(set(here.splitlines())) == 2000
