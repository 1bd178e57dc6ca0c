/* compat_frame.h: where a frame stands, and its globals; compat.h's part about
 * frames.
 *
 * The offset is in bytes from 3.11 on, in instructions of two bytes before; -1 in a frame that has
 * not begun.
 */
#ifndef HS_BINDING_COMPAT_FRAME_H
#define HS_BINDING_COMPAT_FRAME_H

#include "compat.h"

#if PY_VERSION_HEX >= 0x030B0000
#define hs_frame_lasti(frame) PyFrame_GetLasti(frame)
#define hs_frame_globals(frame) PyFrame_GetGlobals(frame)
#else
#include <frameobject.h>
static inline int
hs_frame_lasti(PyFrameObject *frame)
{
    return frame->f_lasti < 0 ? -1 : frame->f_lasti * 2;
}

/* A new reference. */
static inline PyObject *
hs_frame_globals(PyFrameObject *frame)
{
    return Py_NewRef(frame->f_globals);
}
#endif

#endif
