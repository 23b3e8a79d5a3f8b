/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Inheritance: proxies that never set records. A connection that a proxy
 * accepted is a candidate until it is closed. When a process of the same
 * provider dials the candidate's original destination on a socket without
 * records, that connection forwards it, and takes over its records.
 */
#ifndef WB_CANDIDATE_H
#define WB_CANDIDATE_H

#include "policy.h"
#include "records.h"

/* How many tickets back a candidate is still looked for. Older ones wait for something else than their turn. */
#define WB_WINDOW 512

/* How often to begin anew when another CPU takes the candidate first. */
#define WB_TRIES 4

/* Is 0, but the verifier does not know. */
__u32 wb_unknown_zero;

static __always_inline __u32 wb_queue_number(const struct wb_endpoint *dst)
{
	__u64 hash = ((__u64)dst->addr[0] << 32 | dst->addr[1]) * 0x9e3779b97f4a7c15ULL;

	hash = (hash ^ ((__u64)dst->addr[2] << 32 | dst->addr[3])) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 29 ^ dst->port) * 0xc4ceb9fe1a85ec53ULL;
	return hash >> (64 - WB_QUEUE_BITS);
}

static __always_inline void wb_candidate_key(const struct wb_socket *s, struct wb_candidate_key *key)
{
	struct wb_endpoint dst;

	wb_hop_dst(wb_newest_hop(s), &dst);
	key->queue = wb_queue_number(&dst);
	key->ticket = s->by.arrival.ticket;
	key->reserved = 0;
}

/*
 * Only one of several that race forwards a candidate, or closes it before
 * anybody has. Its memory can have passed to another candidate since it was
 * looked up: that one is let go, for a count that is too low would hide those
 * that wait.
 */
static __always_inline bool wb_claim_candidate(struct wb_socket *candidate, struct wb_queue *queue,
					       const struct wb_candidate_key *key)
{
	if (__sync_val_compare_and_swap(&candidate->by.arrival.forwarded, 0, 1))
		return false;
	if (bpf_map_lookup_elem(&candidates, key) != candidate) {
		__sync_val_compare_and_swap(&candidate->by.arrival.forwarded, 1, 0);
		return false;
	}
	__sync_fetch_and_add(&queue->waiting, -1);
	return true;
}

/*
 * Make an accepted connection a candidate. The counts go up first: they never
 * say that there is none while there is one. One that finds no room stays
 * counted, so that no other is taken for the only one.
 */
static __always_inline void wb_list_candidate(struct wb_socket *accepted)
{
	struct wb_candidate_key key;
	struct wb_queue *queue;

	__builtin_memset(&accepted->by.arrival, 0, sizeof(accepted->by.arrival));
	wb_candidate_key(accepted, &key);
	queue = bpf_map_lookup_elem(&queues, &key.queue);
	if (!queue)
		return;
	key.ticket = accepted->by.arrival.ticket = __sync_fetch_and_add(&queue->tickets, 1);
	accepted->flags |= WB_LISTED;
	__sync_fetch_and_add(&queue->open, 1);
	__sync_fetch_and_add(&queue->waiting, 1);
	if (bpf_map_update_elem(&candidates, &key, accepted, BPF_NOEXIST)) {
		__sync_fetch_and_add(&queue->waiting, -1);
		wb_count(WB_UNLISTED);
	}
}

/* The accepted connection is closed: nothing goes on with it any more. */
static __always_inline void wb_unlist_candidate(struct wb_socket *accepted)
{
	struct wb_candidate_key key;
	struct wb_socket *candidate;
	struct wb_queue *queue;

	if (!(accepted->flags & WB_LISTED))
		return;
	accepted->flags &= ~WB_LISTED;
	wb_candidate_key(accepted, &key);
	queue = bpf_map_lookup_elem(&queues, &key.queue);
	if (!queue)
		return;
	candidate = bpf_map_lookup_elem(&candidates, &key);
	if (candidate) {
		wb_claim_candidate(candidate, queue, &key);
		/* Before Linux 6.7 an interrupt can find the bucket busy. */
		if (bpf_map_delete_elem(&candidates, &key) == -EBUSY)
			bpf_map_delete_elem(&candidates, &key);
	}
	__sync_fetch_and_add(&queue->open, -1);
}

/* Note which thread asks where the connection wanted to go: it is about to forward it. */
static __always_inline void wb_note_asker(const struct wb_socket *accepted)
{
	struct wb_candidate_key key;
	struct wb_socket *candidate;

	if (accepted->role != WB_ACCEPTED || !(accepted->flags & WB_LISTED))
		return;
	wb_candidate_key(accepted, &key);
	candidate = bpf_map_lookup_elem(&candidates, &key);
	if (candidate)
		candidate->by.arrival.asked_by = bpf_get_current_task_btf()->pid;
}

/* A walk over a queue, from the newest ticket to older ones. */
struct wb_search {
	__u64 handle;       /* whose candidates */
	__u64 netns_cookie; /* a destination is another one in each network namespace */
	struct wb_endpoint dst;
	__u32 asker; /* the thread that dials */
	struct wb_candidate_key key;
	struct wb_queue *queue;
	__s64 left;        /* candidates that have not been seen */
	__u64 flow_id;     /* of the one that is looked for */
	__u64 found;       /* ticket of the oldest that fits */
	__u32 n_found;     /* how many fit */
	__u32 by_asker;    /* 1: this thread has asked about those, and no others count any more */
	__u32 n_forwarded; /* how many would, if they were not forwarded already */
	__u32 reserved;
	__u64 flows[WB_MAX_LINKS];
};

static __always_inline struct wb_socket *wb_next_candidate(struct wb_search *s)
{
	s->key.ticket--;
	return bpf_map_lookup_elem(&candidates, &s->key);
}

/* Whether it is of the provider, and goes to the destination. */
static __always_inline bool wb_fits(const struct wb_search *s, const struct wb_socket *candidate)
{
	const struct wb_hop *hop = wb_newest_hop(candidate);

	return hop->handle == s->handle && candidate->records.origin.netns_cookie == s->netns_cookie &&
	       wb_hop_is_to(hop, &s->dst);
}

/* Look for all that wait. What is counted stays unknown to the verifier, which would walk the loop for each value. */
static long wb_search_waiting(__u32 i, struct wb_search *s)
{
	struct wb_socket *candidate;
	__u32 asked, n;

	if (s->left <= 0 || !s->key.ticket)
		return 1;
	candidate = wb_next_candidate(s);
	if (!candidate || candidate->by.arrival.forwarded)
		return 0;
	s->left--;
	if (!wb_fits(s, candidate))
		return 0;
	asked = wb_equal(candidate->by.arrival.asked_by, s->asker);
	if (asked < s->by_asker)
		return 0;
	n = asked > s->by_asker ? wb_unknown_zero : s->n_found;
	s->by_asker |= asked;
	s->found = s->key.ticket;
	s->n_found = n + 1;
	s->flows[n & (WB_MAX_LINKS - 1)] = candidate->records.origin.flow_id;
	return 0;
}

/* Look at all that are open, for those that are forwarded; two are as good as many. */
static long wb_search_forwarded(__u32 i, struct wb_search *s)
{
	struct wb_socket *candidate;

	if (s->left <= 0 || !s->key.ticket || s->n_forwarded > 1)
		return 1;
	candidate = wb_next_candidate(s);
	if (!candidate)
		return 0;
	s->left--;
	if (!candidate->by.arrival.forwarded || !wb_fits(s, candidate))
		return 0;
	s->found = s->key.ticket;
	s->n_forwarded++;
	return 0;
}

static long wb_search_flow(__u32 i, struct wb_search *s)
{
	struct wb_socket *candidate;

	if (s->left <= 0 || !s->key.ticket)
		return 1;
	candidate = wb_next_candidate(s);
	if (!candidate || candidate->by.arrival.forwarded)
		return 0;
	s->left--;
	if (!wb_fits(s, candidate) || candidate->records.origin.flow_id != s->flow_id)
		return 0;
	wb_claim_candidate(candidate, s->queue, &s->key);
	return 1;
}

/* Go to the newest ticket of the queue. False: it has none. */
static __always_inline bool wb_begin_search(struct wb_search *s)
{
	s->key.queue = wb_queue_number(&s->dst);
	s->queue = bpf_map_lookup_elem(&queues, &s->key.queue);
	if (!s->queue)
		return false;
	s->key.ticket = *(volatile __u64 *)&s->queue->tickets;
	s->left = *(volatile __s64 *)&s->queue->waiting;
	s->n_found = wb_unknown_zero;
	s->by_asker = wb_unknown_zero;
	s->n_forwarded = wb_unknown_zero;
	return true;
}

/* Whether some proxy has accepted a connection to this destination: the question that most connections end with. */
static __always_inline bool wb_has_candidates(const struct wb_endpoint *dst)
{
	__u32 number = wb_queue_number(dst);
	struct wb_queue *queue = bpf_map_lookup_elem(&queues, &number);

	return queue && *(volatile __s64 *)&queue->open > 0;
}

/* Tell user space which flows the new one may belong to. */
static __always_inline void wb_report_links(const struct wb_search *s, const struct wb_records *r)
{
	struct wb_links *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		wb_count(WB_EVENTS_LOST);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->event.time = bpf_ktime_get_boot_ns();
	e->event.flow_id = r->origin.flow_id;
	e->event.provider = s->handle;
	e->event.kind = WB_EVENT_LINKED;
	e->event.hop = wb_hop_number(r, r->n_hops);
	e->n_candidates = s->n_found;
	e->n_flows = s->n_found < WB_MAX_LINKS ? s->n_found : WB_MAX_LINKS;
	__builtin_memcpy(e->flows, s->flows, sizeof(e->flows));
	bpf_ringbuf_submit(e, 0);
}

struct wb_heir {
	struct bpf_sock *sk;
	struct wb_socket *socket; /* of sk; NULL: it has none yet */
	struct wb_search search;
	__u32 kinship; /* enum wb_kinship */
	__u32 reserved;
};

/*
 * Find a candidate that waits; if none does, the only one that is forwarded: the
 * proxy tries again, or has lost the connection that it opened for it.
 */
static __always_inline struct wb_socket *wb_find_candidate(struct wb_search *s)
{
	if (!wb_begin_search(s))
		return NULL;
	bpf_loop(WB_WINDOW, wb_search_waiting, s, 0);
	if (!s->n_found) {
		s->key.ticket = *(volatile __u64 *)&s->queue->tickets;
		s->left = *(volatile __s64 *)&s->queue->open;
		bpf_loop(WB_WINDOW, wb_search_forwarded, s, 0);
		/* The only one of those that were seen is the only one if no others are open. */
		if (s->n_forwarded != 1 || s->left > 0)
			return NULL;
	}
	s->key.ticket = s->found;
	return bpf_map_lookup_elem(&candidates, &s->key);
}

/*
 * Go on with one candidate. While it is copied its connection can be closed and
 * its memory given to another one, so it is looked up once more.
 */
static long wb_inherit_step(__u32 round, struct wb_heir *h)
{
	struct wb_search *s = &h->search;
	struct wb_socket *candidate = wb_find_candidate(s);

	if (!candidate || !s->queue)
		return 1;
	if (s->n_found && !wb_claim_candidate(candidate, s->queue, &s->key))
		return 0;
	if (!h->socket)
		h->socket = bpf_sk_storage_get(&sockets, h->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!h->socket)
		return 1;
	h->socket->records = candidate->records;
	if (bpf_map_lookup_elem(&candidates, &s->key) != candidate)
		return 0;
	h->kinship = s->n_found > 1 ? WB_KIN_AMBIGUOUS : WB_KIN_INHERITED;
	return 1;
}

/*
 * Records for a socket without any, on which a process of the provider with
 * this handle dials dst. The history is that of the oldest candidate; if this
 * thread has asked for the original destination of some, of the oldest of
 * those. Its flow id comes along if it is the only one.
 */
static __noinline enum wb_kinship wb_inherit(struct wb_heir *h)
{
	struct wb_socket *s;

	h->search.asker = bpf_get_current_task_btf()->pid;
	bpf_loop(WB_TRIES, wb_inherit_step, h, 0);
	s = h->socket;
	if (!s)
		return WB_KIN_NONE;
	if (!h->kinship) {
		s->records.n_hops = 0; /* what a failed try may have left */
		return WB_KIN_NONE;
	}
	s->carried = s->records.n_hops;
	s->role = WB_CONNECTS;
	s->flags = WB_TOOK_OVER;
	wb_count_provider(h->search.handle, WB_PROVIDER_INHERITED);
	if (h->kinship == WB_KIN_INHERITED) {
		wb_count(WB_INHERITED);
		return WB_KIN_INHERITED;
	}
	s->flags |= WB_IS_AMBIGUOUS;
	s->records.origin.flow_id = wb_new_flow_id();
	wb_report_links(&h->search, &s->records);
	wb_count(WB_INHERITED_AMBIGUOUS);
	return WB_KIN_AMBIGUOUS;
}

/* Records were set that came from an accepted connection: it is forwarded. A global function, as wb_decide() is. */
__noinline int wb_forward_candidate(const struct wb_socket *set)
{
	struct wb_search s = {};

	if (!set)
		return 0;
	s.flow_id = set->records.origin.flow_id;
	s.handle = wb_newest_hop(set)->handle;
	s.netns_cookie = set->records.origin.netns_cookie;
	wb_hop_dst(wb_newest_hop(set), &s.dst);
	if (wb_begin_search(&s))
		bpf_loop(WB_WINDOW, wb_search_flow, &s, 0);
	return 0;
}

#endif /* WB_CANDIDATE_H */
