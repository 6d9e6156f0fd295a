# Where the columns of a table lie in its rows and cold records: {name: (array, offset, format, item size)}, array "row" or
# "cold", offset and size in bytes, format as PEP 3118 has it.

cdef dict OBSERVER_COLUMNS
