/* What a memoryview shows, without the buffer protocol. */
#ifndef FASTTCP_SHOWN_H
#define FASTTCP_SHOWN_H

#include <Python.h>

/* The n bytes that a memoryview shows; NULL if it shows anything else, or nothing any more. To be used at once: unlike
   PyObject_GetBuffer, this does not keep them from going away. */
static inline const void *fasttcp_shown(PyObject *view, Py_ssize_t n)
{
#if defined(CYTHON_COMPILING_IN_CPYTHON) && CYTHON_COMPILING_IN_CPYTHON && !defined(Py_LIMITED_API)
    const PyMemoryViewObject *v = (const PyMemoryViewObject *)view;
    if (PyMemoryView_Check(view) && (v->flags & (_Py_MEMORYVIEW_RELEASED | _Py_MEMORYVIEW_C)) == _Py_MEMORYVIEW_C
            && !(v->mbuf->flags & _Py_MANAGED_BUFFER_RELEASED) && v->view.len == n
            && (v->view.itemsize == 1 || v->view.itemsize == n))
        return v->view.buf;
#endif
    return NULL;
}

#endif
