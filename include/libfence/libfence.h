/* SPDX-License-Identifier: MIT */
/**
 * @file
 * All of libfence's public headers.
 */
#ifndef LIBFENCE_LIBFENCE_H
#define LIBFENCE_LIBFENCE_H

#include <libfence/array.h>
#include <libfence/attachment.h>
#include <libfence/base.h>
#include <libfence/bo.h>
#include <libfence/chain.h>
#include <libfence/exec.h>
#include <libfence/fence.h>
#include <libfence/fence_producer.h>
#include <libfence/notice.h>
#include <libfence/provider.h>
#include <libfence/queue.h>
#include <libfence/reclaim.h>
#include <libfence/resv.h>
#include <libfence/ticket.h>
#include <libfence/timeline.h>
#include <libfence/unwrap.h>
#include <libfence/va_heap.h>
#include <libfence/vm.h>
#include <libfence/vm_bo.h>
#include <libfence/vm_txn.h>

#endif /* LIBFENCE_LIBFENCE_H */
