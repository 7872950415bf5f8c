"""Refuses AMX to this process and its threads, so that a run compares VNNI against VNNI, every library alike.

Linux gives the tile state only on request, `arch_prctl(ARCH_REQ_XCOMP_PERM)` (Documentation/arch/x86/xstate.rst). A
seccomp filter answers that request with EPERM. oneDNN (torch, OpenVINO), MLAS (onnxruntime) and lowbit all ask before
they use AMX and take AVX-512 where the answer is no; oneDNN's ONEDNN_MAX_CPU_ISA would not reach MLAS.
"""

import ctypes
import platform
import struct

_ARCH_PRCTL, _REQ_XCOMP_PERM, _EPERM = 158, 0x1023, 1
_AUDIT_X86_64 = 0xC000003E


def refuse() -> None:
    """Call before any library that uses AMX is imported. Does nothing on other machines; cannot be undone."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, refuse_ = 0x7FFF0000, 0x00050000 | _EPERM
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, 5, _AUDIT_X86_64),
        (load, 0, 0, 0),  # .nr
        (equal, 0, 3, _ARCH_PRCTL),
        (load, 0, 0, 16),  # .args[0], low half
        (equal, 0, 1, _REQ_XCOMP_PERM),
        (answer, 0, 0, refuse_),
        (answer, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privs, set_seccomp, mode_filter = 38, 22, 2
    if libc.prctl(no_new_privs, 1, 0, 0, 0) or libc.prctl(set_seccomp, mode_filter, filter_, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp refused the filter that masks AMX")
