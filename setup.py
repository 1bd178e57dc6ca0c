"""Build of the extension module hardsock._core and of hardsock-tune; the rest is in pyproject.toml.

Environment:
    HARDSOCK_DEBUG=1        -O1 -g and the core's debug checks
    HARDSOCK_SANITIZE=LIST  for example address,undefined or thread
    HARDSOCK_COVERAGE=1     gcov counters
    HARDSOCK_NO_MODULE=1    Python files alone: `make build` puts the module beside them
    HARDSOCK_STATIC=PREFIX  OpenSSL and libyaml linked in from there (packaging/static_libs.py): wheels
"""

import atexit
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

if not sys.platform.startswith("linux"):
    sys.exit(f"hardsock runs on Linux only; this is {platform.system() or sys.platform}.")

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.egg_info import egg_info

# setuptools has no face of its own for this one; importing it first made its distutils the one.
from distutils.command.build import build  # isort: skip
from distutils.command.build_scripts import build_scripts  # isort: skip

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)

# What the build needs: header, library, and the package that brings them on Debian, Fedora, Alpine.
NEEDS = [
    ("stdio.h", None, "libc6-dev", "glibc-devel", "musl-dev"),
    ("Python.h", None, "python3-dev", "python3-devel", "python3-dev"),
    ("openssl/ssl.h", "ssl", "libssl-dev", "openssl-devel", "openssl-dev"),
    ("yaml.h", "yaml", "libyaml-dev", "libyaml-devel", "yaml-dev"),
]
COMPILER_PACKAGES = ("gcc", "gcc", "gcc")


def read_flags() -> dict[str, list[str]]:
    text = (ROOT / "tools/flags.mk").read_text()
    return {k: v.split() for k, v in re.findall(r"^(\w+) := (.*)$", text, re.M)}


def read_version() -> str:
    header = (ROOT / "csrc/include/hardsock.h").read_text()
    found = re.search(r'^#define HS_VERSION "([^"]+)"', header, re.M)
    if found is None:
        sys.exit("csrc/include/hardsock.h does not define HS_VERSION.")
    return found[1]


def read_readme() -> str:
    """README.md, with links for those who read it where the repository is not beside it."""
    found = re.search(r'^Source = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    if found is None:
        sys.exit("pyproject.toml does not say under [project.urls] where the source is read.")
    text = (ROOT / "README.md").read_text()
    return re.sub(r"\]\((?!https?:|#)", f"]({found[1]}", text)


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


FLAGS = read_flags()
SANITIZE = os.environ.get("HARDSOCK_SANITIZE", "")

STATIC = os.environ.get("HARDSOCK_STATIC", "")

optimised = False
cflags = FLAGS["HS_STD"] + FLAGS["HS_WARN"]
ldflags = FLAGS["HS_LDFLAGS"] + FLAGS["HS_LIBS"]
if STATIC:
    cflags += [f"-I{STATIC}/include"]
    archives = {"-lssl": f"{STATIC}/lib/libssl.a", "-lcrypto": f"{STATIC}/lib/libcrypto.a"}
    # The process may have another OpenSSL, of the ssl module: neither may see the other's names.
    ldflags = [archives.get(word, word) for word in ldflags]
    ldflags += ["-Wl,--exclude-libs,ALL", "-Wl,--gc-sections", "-ldl"]
if flag("HARDSOCK_COVERAGE"):
    cflags += FLAGS["HS_OPT_COVERAGE"]
    ldflags += ["--coverage"]
elif flag("HARDSOCK_DEBUG") or SANITIZE:
    cflags += FLAGS["HS_OPT_DEBUG"]
else:
    optimised = True
    cflags += FLAGS["HS_OPT_RELEASE"] + FLAGS["HS_HARDEN"]
    if platform.machine() in ("x86_64", "i386", "i686"):
        cflags += FLAGS["HS_HARDEN_X86"]
if SANITIZE:
    cflags += [f"-fsanitize={SANITIZE}"]
    ldflags += [f"-fsanitize={SANITIZE}"]


class BuildExt(build_ext):
    """Looks for what is missing before the first compiler error could say it less clearly."""

    def build_extensions(self):
        self.preflight()
        if optimised and self.compiles("#if defined __clang__\n#error\n#endif\n", "-fsyntax-only"):
            for ext in self.extensions:
                ext.extra_compile_args += FLAGS["HS_LTO_GCC"]
        plain_compile = self.compiler._compile

        def compile_one(obj, src, ext, cc_args, postargs, pp_opts):
            in_core = not src.startswith("csrc/binding/")
            extra = FLAGS["HS_WARN_CORE"] if in_core else []
            plain_compile(obj, src, ext, cc_args, [*postargs, *extra], pp_opts)

        self.compiler._compile = compile_one
        super().build_extensions()
        if not self.inplace and not self.editable_mode:
            self.build_lab()

    def build_lab(self):
        """The lab's programs stand beside their Python, so that the core need not know them: lab/NAME
        becomes hardsock-NAME. Without a compiler flag of their own: they link nothing but libc."""
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        flags = [*FLAGS["HS_STD"], *FLAGS["HS_OPT_RELEASE"], *FLAGS["HS_HARDEN"]]
        flags += shlex.split(os.environ.get("CFLAGS", ""))
        for place in sorted(p for p in (ROOT / "lab").iterdir() if p.is_dir()):
            target = Path(self.build_lib) / f"hardsock/lab/hardsock-{place.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            command = [*compiler, *flags, *sorted(map(str, place.glob("*.c")))]
            command += [*FLAGS["HS_LDFLAGS"], *shlex.split(os.environ.get("LDFLAGS", ""))]
            if subprocess.run([*command, "-o", str(target), "-lm"]).returncode != 0:
                sys.exit(f"{target.name} cannot be built here; see the messages above.")

    def copy_file(self, infile, outfile, *args, **kwargs):
        """Into place in one step: another build, or a program, may be reading the old one."""
        made = super().copy_file(infile, f"{outfile}.{os.getpid()}", *args, **kwargs)
        os.replace(made[0], outfile)
        return outfile, made[1]

    def compiles(self, source: str, *more: str) -> bool:
        includes = [f"-I{d}" for d in self.include_dirs]
        command = [*self.compiler.compiler_so, *includes, "-x", "c", "-", *more]
        try:
            done = subprocess.run(command, input=source, text=True, capture_output=True)
        except OSError:
            return False
        return done.returncode == 0

    def has_library(self, name: str) -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            target = os.path.join(scratch, "a.out")
            return self.compiles("int x;", "-shared", "-fPIC", "-o", target, f"-l{name}")

    def preflight(self):
        missing = []
        if STATIC and not os.path.isfile(f"{STATIC}/lib/libssl.a"):
            sys.exit(
                f"HARDSOCK_STATIC={STATIC}: no lib/libssl.a there; packaging/static_libs.py {STATIC} "
                "makes it."
            )
        if not shutil.which("make"):
            missing.append(("make", "make", "make", "make"))
        if not self.compiles("int x;", "-fsyntax-only"):
            compiler = self.compiler.compiler_so[0]
            missing.append((f"a C compiler ({compiler} does not work)", *COMPILER_PACKAGES))
            # It would be what finds the rest.
            missing += [(f"perhaps {header}", *packages) for header, _, *packages in NEEDS]
        else:
            for header, library, *packages in NEEDS:
                probe = f"#if !__has_include(<{header}>)\n#error missing\n#endif\n"
                places = [f"-I{STATIC}/include"] if STATIC else []
                if not self.compiles(probe, "-fsyntax-only", *places):
                    missing.append((header, *packages))
                elif library and not STATIC and not self.has_library(library):
                    missing.append((f"lib{library}", *packages))
        if missing:
            lines = [
                f"  {what}: apt install {deb} | dnf install {rpm} | apk add {apk}"
                for what, deb, rpm, apk in missing
            ]
            sys.exit("\n".join(["hardsock cannot be built here. Missing:", *lines]))


core = Extension(
    "hardsock._core",
    sources=sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("csrc/**/*.c")),
    depends=sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("csrc/**/*.h")),
    include_dirs=["csrc", "csrc/include"],
    extra_compile_args=cflags,
    extra_link_args=ldflags,
)


class BuildTune(build_scripts):
    """The companion program, as a script of the wheel: a native binary without a Python around it."""

    def run(self):
        target = Path(self.build_dir) / "hardsock-tune"
        target.parent.mkdir(parents=True, exist_ok=True)
        # libyaml is linked in: nothing in a wheel brings it along, and auditwheel, which would copy
        # it, puts a Python script in the place of a program that needs a copied library.
        command = ["make", "-s", "-C", "tuning", "WERROR=", "YAML_STATIC=1"]
        if STATIC:
            command += [f"YAML_CFLAGS=-I{STATIC}/include", f"YAML_LIBS={STATIC}/lib/libyaml.a"]
        done = subprocess.run([*command, f"OUT={target.parent.resolve()}/tune"])
        if done.returncode != 0:
            sys.exit("hardsock-tune cannot be built here; see the messages above.")
        self.copy_file(str(target.parent / "tune/hardsock-tune"), str(target))
        target.chmod(0o755)
        shutil.rmtree(target.parent / "tune")


# setuptools leaves objects in build/ beside the sources and takes them up again whatever flags made
# them, and two builds of one checkout (two environments of tox, say) write to the same ones. So each
# build has a folder of its own; who wants to compile only what changed has `make`.
SCRATCH = tempfile.mkdtemp(prefix="hardsock-build-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


class Build(build):
    def initialize_options(self):
        super().initialize_options()
        self.build_base = SCRATCH


class EggInfo(egg_info):
    """Its files are read while the wheel is made, so they are not shared either."""

    def initialize_options(self):
        super().initialize_options()
        self.egg_base = SCRATCH


pure = flag("HARDSOCK_NO_MODULE")
setup(
    version=read_version(),
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    cmdclass={
        "build": Build,
        "build_ext": BuildExt,
        "build_scripts": BuildTune,
        "egg_info": EggInfo,
    },
    ext_modules=[] if pure else [core],
    scripts=[] if pure else ["tuning/src/main.c"],
)
