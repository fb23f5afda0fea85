#pragma once

#include "base/result.h"

namespace kvasir {

/// From here on the kernel refuses this process (EPERM), in all of its threads, every system call
/// that a server does not need whose model is loaded and whose threads run: starting programs and
/// threads, opening sockets and connections, opening files to write, memory that is executable, and
/// all else that is not in a list. There is no way back. Where `removes_socket`, files can still be
/// removed, as a Unix socket is at the end. See seccomp(2).
Status KeepServingCallsOnly(bool removes_socket);

}  // namespace kvasir
