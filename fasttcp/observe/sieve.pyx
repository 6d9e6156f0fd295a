"""Runs a filter on entries, before any text or object is made of them.

What must not stand here: words. The program is postfix; its stack is 64 bits of one number, the newest lowest, which the
parser's limit on nesting never fills. Cost: a few ns for each condition.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp

from fasttcp.core.summary cimport SUMMARY_IPV6
from fasttcp.observe.journal cimport entry_free


cdef inline bint in_network(const Op *op, const Entry *e) noexcept nogil:
    cdef const uint8_t *addr = e.summary.addr[op.side]
    cdef uint8_t whole = op.prefix >> 3, rest = op.prefix & 7
    if (e.summary.flags & SUMMARY_IPV6 != 0) != (op.port == 6):
        return False
    if memcmp(addr, op.addr, whole) != 0:
        return False
    return rest == 0 or (addr[whole] ^ op.addr[whole]) >> (8 - rest) == 0


cdef inline bint compares(const Op *op, uint16_t port) noexcept nogil:
    if op.compare == CMP_EQ:
        return port == op.port
    if op.compare == CMP_NE:
        return port != op.port
    if op.compare == CMP_GT:
        return port > op.port
    if op.compare == CMP_LT:
        return port < op.port
    if op.compare == CMP_GE:
        return port >= op.port
    return port <= op.port


cdef inline bint in_states(const Op *op, const Entry *e) noexcept nogil:
    if op.side < 2:
        return op.states >> e.summary.state[op.side] & 1
    return (op.states >> e.summary.state[0] | op.states >> e.summary.state[1]) & 1


cdef bint passes(const Op *program, size_t n, const Entry *e) noexcept nogil:
    """Whether the filter lets an entry through. No program lets all through."""
    cdef uint64_t stack = 1
    cdef const Op *op
    cdef size_t i
    for i in range(n):
        op = &program[i]
        if op.kind == OP_STATES:
            stack = stack << 1 | in_states(op, e)
        elif op.kind == OP_PORT:
            stack = stack << 1 | compares(op, e.summary.port[op.side])
        elif op.kind == OP_NET:
            stack = stack << 1 | in_network(op, e)
        elif op.kind == OP_AND:
            stack = stack >> 1 & (stack | ~<uint64_t>1)
        elif op.kind == OP_OR:
            stack = stack >> 1 | stack & 1
        else:
            stack ^= 1
    return stack & 1


cdef size_t sift(const Op *program, size_t n, Entry *entries, size_t count) noexcept nogil:
    """Keep the entries that pass, in their order, let go of the others; how many stay."""
    cdef size_t i, kept = 0
    for i in range(count):
        if passes(program, n, &entries[i]):
            if kept != i:
                entries[kept] = entries[i]
            kept += 1
        else:
            entry_free(&entries[i])
    return kept
