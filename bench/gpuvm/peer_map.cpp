// SPDX-License-Identifier: MIT
// The address space that one would write in C++: a map of mappings by their last address, and a mutex that readers share.
#include "peers.h"

#include <map>
#include <mutex>
#include <shared_mutex>

struct sm_space {
	std::shared_mutex mutex;
	std::map<uint64_t, peer_mapping *> mappings;
};

using iterator = std::map<uint64_t, peer_mapping *>::iterator;

sm_space *sm_create()
{
	return new sm_space;
}

static uint64_t last_of(const range &r)
{
	return r.va + r.size - 1;
}

// In front of what is at the iterator.
static void insert(sm_space *space, iterator at, const range &r)
{
	space->mappings.emplace_hint(at, last_of(r), new peer_mapping{ r, nullptr });
}

// Returns what is behind.
static iterator clear(sm_space *space, uint64_t va, uint64_t last)
{
	iterator it = space->mappings.lower_bound(va);

	while (it != space->mappings.end() && it->second->range.va <= last) {
		range &old = it->second->range;

		if (old.va < va)
			insert(space, it, { old.va, va - old.va, old.offset, old.flags });
		if (it->first > last) {
			old = { last + 1, it->first - last, old.offset + (last + 1 - old.va), old.flags };
			break;
		}
		delete it->second;
		it = space->mappings.erase(it);
	}
	return it;
}

void sm_map(struct sm_space *space, const range *r)
{
	sm_map_all(space, r, 1);
}

void sm_map_all(struct sm_space *space, const range *ranges, size_t count)
{
	std::unique_lock lock(space->mutex);

	for (size_t i = 0; i < count; i++)
		insert(space, clear(space, ranges[i].va, last_of(ranges[i])), ranges[i]);
}

void sm_unmap(struct sm_space *space, const range *r)
{
	std::unique_lock lock(space->mutex);

	clear(space, r->va, last_of(*r));
}

bool sm_lookup(struct sm_space *space, uint64_t va, uint64_t *ret_offset)
{
	std::shared_lock lock(space->mutex);
	auto it = space->mappings.lower_bound(va);

	if (it == space->mappings.end() || it->second->range.va > va)
		return false;
	*ret_offset = it->second->range.offset;
	return true;
}
