# The one list of compiler and linker flags, included by the Makefile and parsed by setup.py.
# Only lines of the form `NAME := words` here: setup.py understands nothing more.

# What we export is ours: calls among ourselves need not go where a preloaded library may redirect
# them.
HS_STD := -std=c11 -D_GNU_SOURCE -fvisibility=hidden -fPIC -fno-semantic-interposition
HS_INCLUDE := -Icsrc -Icsrc/include
HS_WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings
# Python.h is not pedantic C11, so the binding does without this one.
HS_WARN_CORE := -Wpedantic
# -U first: some distributions predefine it, and a second definition would warn.
HS_HARDEN := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection
HS_HARDEN_X86 := -fcf-protection
HS_LDFLAGS := -Wl,-z,relro,-z,now -Wl,-Bsymbolic
HS_LIBS := -lssl -lcrypto -lpthread
# Flavours. Sanitizers and torture do without _FORTIFY_SOURCE: its *_chk variants hide the calls
# that they want to see.
HS_OPT_RELEASE := -O2 -g
# The hot paths cross files. Fat objects: libhardsock.a is for any linker. Other compilers spell it
# differently, or need a linker of their own.
HS_LTO_GCC := -flto=auto -ffat-lto-objects -fno-plt
HS_OPT_DEBUG := -O1 -g -fno-omit-frame-pointer -DHS_DEBUG=1
HS_OPT_COVERAGE := -O0 -g --coverage -fprofile-update=atomic -DHS_DEBUG=1
