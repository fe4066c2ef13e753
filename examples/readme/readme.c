/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>

#include <libfence/libfence.h>

static void *engine(void *gpu) /* the producer: finishes everything up to job 2 */
{
	lf_timeline_signal_to(gpu, 2, 0);
	lf_timeline_put(gpu); /* the last reference: the engine is gone, its fences stay */
	return NULL;
}

static void job_done(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)cb;
	printf("job %d done\n", (int)lf_fence_seqno(f));
}

int main(void)
{
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;
	struct lf_fence *job1, *job2;
	struct lf_timeline *gpu;
	pthread_t thread;

	if (lf_timeline_create(&(struct lf_timeline_desc){ .name = "gpu" }, &gpu) || lf_timeline_emit(gpu, 1, &job1) ||
	    lf_timeline_emit(gpu, 2, &job2) || lf_fence_add_callback(job1, &cb, job_done) || pthread_create(&thread, NULL, engine, gpu))
		return 1;
	int late = lf_fence_wait(job2, lf_deadline_in(1000000000)); /* sleeps for a second at most */
	pthread_join(thread, NULL); /* job_done has returned: it ran on that thread */
	printf("%s, status %d\n", late ? "too late" : "in time", lf_fence_status(job2));
	lf_fence_put(job1);
	lf_fence_put(job2);
	return late ? 1 : lf_fini();
}
