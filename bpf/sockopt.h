/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The socket options, as docs/sockopt.md promises them. Each answer function
 * returns 0 or a negative errno. The kernel copies nothing to the caller on
 * an error, so a buffer written halfway is never seen.
 */
#ifndef WB_SOCKOPT_H
#define WB_SOCKOPT_H

#include "candidate.h"
#include "process.h"
#include "records.h"

#define WB_SO_ORIGINAL_DST 80 /* at SOL_IP and at SOL_IPV6: linux/netfilter_ipv4.h, ip6_tables.h */

struct wb_sockaddr_in {
	__u16 family;
	__be16 port;
	__be32 addr;
	__u8 zero[8];
};

struct wb_sockaddr_in6 {
	__u16 family;
	__be16 port;
	__be32 flowinfo;
	__be32 addr[4];
	__u32 scope_id;
};

static __always_inline bool wb_has_records(const struct bpf_sock *sk)
{
	return ((sk->type == SOCK_STREAM && sk->protocol == IPPROTO_TCP) ||
		(sk->type == SOCK_DGRAM && sk->protocol == IPPROTO_UDP)) &&
	       (sk->family == AF_INET || sk->family == AF_INET6);
}

static __always_inline bool wb_is_connected(const struct bpf_sock *sk)
{
	return sk->state != BPF_TCP_CLOSE && sk->state != BPF_TCP_LISTEN && sk->state != BPF_TCP_SYN_SENT;
}

/*
 * The size protocol. 1: the buffer takes `size` bytes; 0: only the size was
 * asked for and is now in optlen; negative: the buffer is too short. A length
 * of 0 with a buffer ends as EFAULT in the kernel, because optlen then
 * exceeds the buffer.
 */
static __always_inline int wb_room(struct bpf_sockopt *ctx, __u32 size)
{
	int optlen = ctx->optlen;

	if (optlen && optlen < (int)size)
		return -ERANGE;
	ctx->optlen = size;
	return optlen ? 1 : 0;
}

static __always_inline int wb_answer_records(struct bpf_sockopt *ctx, const struct wb_socket *s)
{
	__u32 size = wb_blob_size(s->records.n_hops);
	int room;

	if (!size)
		return -ENODATA;
	room = wb_room(ctx, size);
	if (room <= 0)
		return room;
	return wb_write_blob(&s->records, ctx->optval, ctx->optval_end) ? 0 : -ERANGE;
}

/* Only the provider whose filter attached the context may read it, and an administrator. */
static __always_inline bool wb_may_read_context(const struct wb_socket *s)
{
	const struct wb_policy *policy = wb_active_policy();
	int provider = policy ? wb_current_provider(policy) : -1;

	if (policy && provider >= 0)
		return policy->providers[provider & (WB_MAX_PROVIDERS - 1)].handle == wb_newest_hop(s)->handle;
	return wb_current_is_admin();
}

static __always_inline int wb_answer_context(struct bpf_sockopt *ctx, const struct wb_socket *s)
{
	struct wb_context *context;
	__u8 *out;
	void *end;
	__u32 size;
	int room;

	if (!(s->flags & WB_HAS_CONTEXT) || !wb_may_read_context(s))
		return -ENODATA;
	context = bpf_sk_storage_get(&socket_contexts, ctx->sk, 0, 0);
	if (!context)
		return -ENODATA;
	size = context->size;
	room = wb_room(ctx, size);
	if (room <= 0)
		return room;
	out = ctx->optval;
	end = ctx->optval_end;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WAYBILL_CONTEXT_MAX; i++) {
		if (i >= size)
			break;
		if ((void *)(out + 1) > end)
			return -ERANGE;
		*out++ = context->data[i];
	}
	return 0;
}

static __always_inline int wb_answer_sockaddr4(struct bpf_sockopt *ctx, const struct wb_hop *hop)
{
	struct wb_sockaddr_in *out;
	int room = wb_room(ctx, sizeof(*out));

	if (room <= 0)
		return room;
	out = ctx->optval;
	if ((void *)(out + 1) > ctx->optval_end)
		return -ERANGE;
	*out = (struct wb_sockaddr_in){ .family = AF_INET, .port = hop->port, .addr = hop->addr[3] };
	return 0;
}

static __always_inline int wb_answer_sockaddr6(struct bpf_sockopt *ctx, const struct wb_hop *hop)
{
	struct wb_sockaddr_in6 *out;
	int room = wb_room(ctx, sizeof(*out));

	if (room <= 0)
		return room;
	out = ctx->optval;
	if ((void *)(out + 1) > ctx->optval_end)
		return -ERANGE;
	*out = (struct wb_sockaddr_in6){ .family = AF_INET6, .port = hop->port };
	__builtin_memcpy(out->addr, hop->addr, sizeof(out->addr));
	return 0;
}

static __always_inline int wb_answer_original_dst(struct bpf_sockopt *ctx, const struct wb_socket *s)
{
	const struct wb_hop *hop = wb_newest_hop(s);

	return wb_is_mapped(hop->addr) ? wb_answer_sockaddr4(ctx, hop) : wb_answer_sockaddr6(ctx, hop);
}

/* A caller of version 1 has room for the first fields only. */
static __always_inline int wb_answer_origin(struct bpf_sockopt *ctx, const struct wb_socket *s)
{
	const struct wb_records *r = &s->records;
	struct waybill_origin *out;
	struct wb_process *begin;
	int room;

	if (ctx->optlen && ctx->optlen < (int)sizeof(*out)) {
		room = wb_room(ctx, sizeof(*begin));
		begin = ctx->optval;
		if (room <= 0)
			return room;
		if ((void *)(begin + 1) > ctx->optval_end)
			return -ERANGE;
		*begin = r->origin;
		return 0;
	}
	room = wb_room(ctx, sizeof(*out));
	if (room <= 0)
		return room;
	out = ctx->optval;
	if ((void *)(out + 1) > ctx->optval_end)
		return -ERANGE;
	__builtin_memcpy(out, &r->origin, sizeof(r->origin));
	out->program_inode = r->inode;
	out->program_device = r->device;
	out->reserved = 0;
	return 0;
}

/* The state for the caller's provider; for a caller that belongs to none, for the one that redirected last. */
static __always_inline int wb_answer_state(struct bpf_sockopt *ctx, const struct wb_socket *s)
{
	const struct wb_policy *policy = wb_active_policy();
	struct waybill_redirect_state *out;
	struct waybill_redirect_state answer = {};
	int provider, room;

	if (s && s->records.n_hops) {
		answer.state = WAYBILL_REDIRECTED_BY_SELF;
		answer.hops = s->records.n_hops;
		provider = policy ? wb_current_provider(policy) : -1;
		if (policy && provider >= 0)
			answer.state = wb_state(&policy->providers[provider & (WB_MAX_PROVIDERS - 1)], s->records.hops,
						s->records.n_hops);
	}
	room = wb_room(ctx, sizeof(*out));
	if (room <= 0)
		return room;
	out = ctx->optval;
	if ((void *)(out + 1) > ctx->optval_end)
		return -ERANGE;
	*out = answer;
	return 0;
}

static __always_inline int wb_answer(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct wb_socket *s;

	if (!sk || !wb_has_records(sk))
		return -EINVAL;
	if (!wb_is_connected(sk))
		return -ENOTCONN;
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	/* Another waybill, of a cgroup inside ours, has answered: the kernel itself knows no such option. */
	if ((!s || !s->records.n_hops) && !bpf_get_retval())
		return 0;
	if (ctx->optname == WAYBILL_REDIRECT_STATE)
		return wb_answer_state(ctx, s);
	if (!s || !s->records.n_hops)
		return -ENODATA;
	switch (ctx->optname) {
	case WAYBILL_REDIRECT_RECORDS:
		return wb_answer_records(ctx, s);
	case WAYBILL_REDIRECT_CONTEXT:
		return wb_answer_context(ctx, s);
	case WAYBILL_ORIGINAL_DST:
		wb_note_asker(s);
		return wb_answer_original_dst(ctx, s);
	default:
		return wb_answer_origin(ctx, s);
	}
}

/*
 * SO_ORIGINAL_DST as netfilter answers it, for proxies that know nothing of
 * waybill: only on an accepted socket, EINVAL for a short buffer, and the
 * kernel's own answer wherever we have none.
 */
static __always_inline void wb_answer_netfilter(struct bpf_sockopt *ctx)
{
	const struct wb_hop *hop;
	struct bpf_sock *sk = ctx->sk;
	struct wb_socket *s;
	int err;

	if (!sk || !wb_has_records(sk))
		return;
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!s || s->role != WB_ACCEPTED || !s->records.n_hops)
		return;
	hop = wb_newest_hop(s);
	if (ctx->level == SOL_IP) {
		if (!wb_is_mapped(hop->addr))
			return;
		err = wb_answer_sockaddr4(ctx, hop);
	} else {
		if (sk->family != AF_INET6)
			return;
		err = wb_answer_sockaddr6(ctx, hop);
	}
	wb_note_asker(s);
	wb_count(WB_QUERIED);
	bpf_set_retval(err == -ERANGE ? -EINVAL : err);
}

static __always_inline int wb_set_records(struct bpf_sockopt *ctx)
{
	const struct wb_policy *policy = wb_active_policy();
	struct bpf_sock *sk = ctx->sk;
	void *in = ctx->optval, *end = ctx->optval_end;
	int size = ctx->optlen;
	struct wb_socket *s;

	if (!wb_current_is_admin() && !(policy && wb_current_provider(policy) >= 0)) {
		wb_count(WB_SET_DENIED);
		return -EACCES;
	}
	if (!sk || !wb_has_records(sk)) {
		wb_count(WB_SET_SOCKET_TYPE);
		return -EINVAL;
	}
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (sk->state != BPF_TCP_CLOSE) {
		wb_count(WB_SET_CONNECTED);
		return -EINVAL;
	}
	if (size <= 0 || !wb_blob_is_well_formed(in, end, size)) {
		wb_count(WB_SET_MALFORMED);
		return -EINVAL;
	}
	if (!wb_blob_is_sealed(in, end, size)) {
		wb_count(WB_SET_FORGED);
		return -EINVAL;
	}
	if (!s)
		s = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s) {
		wb_count(WB_SET_NO_MEMORY);
		return -ENOMEM;
	}
	/* The size again, fresh from the context: with what the verifier knows of it by now it would walk every length twice. */
	wb_read_blob(&s->records, in, end, *(volatile __s32 *)&ctx->optlen);
	s->carried = s->records.n_hops;
	s->role = WB_CONNECTS;
	s->flags = 0;
	wb_forward_candidate(s);
	wb_count(WB_SET);
	return 0;
}

#endif /* WB_SOCKOPT_H */
