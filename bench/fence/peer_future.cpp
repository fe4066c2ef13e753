// SPDX-License-Identifier: MIT
// The fence that the C++ standard library has: a promise and its shared future. The shared state is counted by the library itself.
#include "peers.h"

#include <chrono>
#include <future>
#include <new>

struct sf_fence {
	std::promise<int> promise;
	std::shared_future<int> future{ promise.get_future().share() };
};

sf_fence *sf_fence_create()
{
	return new (std::nothrow) sf_fence;
}

void sf_fence_put(sf_fence *f)
{
	delete f;
}

bool sf_fence_signal(sf_fence *f, int error)
{
	f->promise.set_value(error);
	return true;
}

bool sf_fence_is_signaled(const sf_fence *f)
{
	return f->future.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

int sf_fence_wait(sf_fence *f)
{
	f->future.wait();
	return 0;
}
