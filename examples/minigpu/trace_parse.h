/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Reading the text of a kernel trace.
 */
#ifndef MINIGPU_TRACE_PARSE_H
#define MINIGPU_TRACE_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What an event means here; several names of several kernels may mean the same. */
enum trace_kind {
	TRACE_SUBMIT, /**< a job was handed to its ring */
	TRACE_RUN, /**< the ring was told to run it */
	TRACE_DONE, /**< drm_sched_job_done: its finished fence has signaled */
	TRACE_SIGNALED, /**< dma_fence_signaled */
	TRACE_FENCE, /**< another event in the life of a fence: it exists */
	TRACE_DEPENDENCY, /**< a job waits for a fence */
	TRACE_KINDS,
};

/** One event. Strings are numbers of trace::strings; 0 is the empty one. */
struct trace_event {
	int64_t time; /**< ns */
	uint64_t context; /**< of the fence, or of the job's finished fence */
	uint64_t seqno;
	uint64_t on_context; /**< TRACE_DEPENDENCY: what is waited for */
	uint64_t on_seqno;
	uint32_t ring; /**< string: the ring of a job, the timeline of a fence */
	uint32_t driver; /**< string: the driver of a fence, the device of a job */
	uint32_t line; /**< in the file, from 1 */
	enum trace_kind kind;
};

/** A trace. */
struct trace {
	const char *path;
	struct trace_event *events; /**< in the order of their times; those of one time in the order of the file */
	size_t count, capacity;
	char **strings;
	size_t string_count, string_capacity;
	size_t per_kind[TRACE_KINDS];
	size_t unknown; /**< events that are none of ours */
	size_t malformed; /**< lines */
};

/**
 * Reads a trace. Each malformed line is named on stderr, up to a limit.
 *
 * @param strict the first malformed line ends it
 * @return whether it could be read; if not, the reason is on stderr.
 */
bool trace_read(struct trace *t, const char *path, bool strict);
void trace_free(struct trace *t);

#endif /* MINIGPU_TRACE_PARSE_H */
