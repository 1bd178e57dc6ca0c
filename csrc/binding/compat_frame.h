/* compat_frame.h: the offset at which a frame stands; compat.h's part for those who look at frames.
 *
 * In bytes from 3.11 on, in instructions of two bytes before; -1 in a frame that has not begun.
 */
#ifndef HS_BINDING_COMPAT_FRAME_H
#define HS_BINDING_COMPAT_FRAME_H

#include "compat.h"

#if PY_VERSION_HEX >= 0x030B0000
#define hs_frame_lasti(frame) PyFrame_GetLasti(frame)
#else
#include <frameobject.h>
static inline int
hs_frame_lasti(PyFrameObject *frame)
{
    return frame->f_lasti < 0 ? -1 : frame->f_lasti * 2;
}
#endif

#endif
