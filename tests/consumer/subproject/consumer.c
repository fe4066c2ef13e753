/* SPDX-License-Identifier: MIT */
/* Frames between two threads: one draws them in order, the other waits for each and counts callbacks. Exits with 0 if all went well. */
#include <pthread.h>
#include <stdio.h>

#include <libfence/libfence.h>

enum { FRAMES = 100 };

struct frame {
	struct lf_fence *fence;
	struct lf_fence_cb cb;
	unsigned number;
};

static unsigned calls; /* written by callbacks only, which run on the drawing thread */
static int mistakes;

static void frame_done(struct lf_fence *fence, struct lf_fence_cb *cb)
{
	const struct frame *frame = (struct frame *)((char *)cb - offsetof(struct frame, cb));

	if (frame->fence != fence || frame->number != ++calls)
		mistakes++;
}

static void *draw(void *timeline)
{
	for (uint64_t n = 1; n <= FRAMES; n++)
		lf_timeline_signal_to(timeline, n, n == FRAMES ? -5 : 0);
	return NULL;
}

int main(void)
{
	static struct frame frames[FRAMES];
	const struct lf_timeline_desc desc = { .name = "frames" };
	struct lf_timeline *timeline;
	pthread_t thread;
	int left;

	if (lf_timeline_create(&desc, &timeline))
		return 1;
	for (unsigned i = 0; i < FRAMES; i++) {
		frames[i].number = i + 1;
		if (lf_timeline_emit(timeline, 0, &frames[i].fence) || lf_fence_add_callback(frames[i].fence, &frames[i].cb, frame_done))
			return 1;
	}
	if (pthread_create(&thread, NULL, draw, timeline))
		return 1;
	for (unsigned i = 0; i < FRAMES; i++) {
		int expected = i == FRAMES - 1 ? -5 : 1;

		if (lf_fence_wait(frames[i].fence, lf_now() + INT64_C(10000000000)) || lf_fence_status(frames[i].fence) != expected)
			mistakes |= 256;
	}
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < FRAMES; i++)
		lf_fence_put(frames[i].fence);
	lf_timeline_put(timeline);
	left = lf_fini();
	printf("consumer: %u frames, %u callbacks, %s\n", (unsigned)FRAMES, calls, mistakes || left ? "with mistakes" : "all well");
	return mistakes || left || calls != FRAMES;
}
