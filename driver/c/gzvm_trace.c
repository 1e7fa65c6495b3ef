// SPDX-License-Identifier: GPL-2.0
/*
 * The trace events' one instance, and a plain function for each that Rust can call.
 */
#define CREATE_TRACE_POINTS
#include "gzvm_trace.h"
#include "kx_helpers.h"

void gzvm_kx_trace_hypcall_enter(unsigned long id)
{
	trace_mtk_hypcall_enter(id);
}

void gzvm_kx_trace_hypcall_leave(unsigned long id, unsigned long invalid)
{
	trace_mtk_hypcall_leave(id, invalid);
}

void gzvm_kx_trace_vcpu_exit(unsigned long exit_reason)
{
	trace_mtk_vcpu_exit(exit_reason);
}
