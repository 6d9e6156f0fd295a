# Where the columns of a table lie: {name: (array, offset, format, item size)}. The array is "row" or "cold", offset and
# size are in bytes, the format is PEP 3118's.

cdef dict OBSERVER_COLUMNS
cdef dict ENDPOINT_COLUMNS
