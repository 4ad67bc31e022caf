/* SPDX-License-Identifier: MIT
 *
 * USDT probes: a nop each until somebody attaches (bpftrace, perf, gdb).
 *
 *   strata:submit(req, op, offset, len)   strata:done(req, op, status, ns)
 */
#ifndef ST_PROBES_H
#define ST_PROBES_H

#ifdef ST_HAVE_SDT
#include <sys/sdt.h>
#define ST_PROBE4(name, a, b, c, d) DTRACE_PROBE4(strata, name, a, b, c, d)
#else
#define ST_PROBE4(name, a, b, c, d) ((void)0)
#endif

#endif
