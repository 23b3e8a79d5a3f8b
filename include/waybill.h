/* SPDX-License-Identifier: MIT */
/*
 * waybill: redirect records on sockets. On Linux they are socket options, for
 * any language that has getsockopt() and setsockopt(); docs/sockopt.md is the
 * manual. On Windows they are control codes of Winsock; see docs/windows.md.
 *
 * A transparent proxy needs two calls:
 *
 *	static WAYBILL_ALIGNED char records[WAYBILL_RECORDS_MAX];
 *	size_t size = sizeof(records);
 *
 *	waybill_query_redirect_records(accepted, records, &size);
 *	waybill_set_redirect_records(upstream, records, size);
 *	connect(upstream, ...);
 *
 * which are, on Linux:
 *
 *	getsockopt(accepted, SOL_WAYBILL, WAYBILL_REDIRECT_RECORDS, records, &size);
 *	setsockopt(upstream, SOL_WAYBILL, WAYBILL_REDIRECT_RECORDS, records, size);
 */
#ifndef WAYBILL_H
#define WAYBILL_H

#ifdef _WIN32
#include "waybill_windows.h"
#else
#include <linux/types.h>

/* The socket option level. */
#define SOL_WAYBILL 0x5742

/*
 * The options. All can be read on a connected socket of TCP or UDP; only the
 * records can be set, on one that is not connected yet.
 */
#define WAYBILL_REDIRECT_RECORDS 1 /* opaque bytes: pass them on, do not look inside */
#define WAYBILL_REDIRECT_CONTEXT 2 /* bytes that the provider's filter attached for its own proxy */
#define WAYBILL_ORIGINAL_DST 3     /* struct sockaddr_in or struct sockaddr_in6 */
#define WAYBILL_ORIGIN 4           /* struct waybill_origin */
#define WAYBILL_REDIRECT_STATE 5   /* struct waybill_redirect_state */

/* A buffer of this size holds the answer to any option, now and in later versions. */
#define WAYBILL_RECORDS_MAX 1024
#define WAYBILL_CONTEXT_MAX 1024

/*
 * The process that opened the connection at the start of the chain. Later
 * versions may append fields: an answer is never longer than the buffer, and
 * a buffer of at least this version's size is always accepted.
 */
struct waybill_origin {
	__u32 pid;  /* thread that called connect(), in the initial pid namespace */
	__u32 tgid; /* its process */
	__u32 uid;  /* effective user and group, in the initial user namespace */
	__u32 gid;
	__u64 cgroup_id;    /* cgroup v2 id: the inode number of its directory */
	__u64 netns_cookie; /* as SO_NETNS_COOKIE answers in that namespace */
	__u64 start_time;   /* of the process, nanoseconds since boot (CLOCK_BOOTTIME) */
	__u64 flow_id;      /* one for the application's connection and all that proxies opened for it */
	char comm[16];      /* the process's name, NUL-terminated; for people, not for decisions */
	/* Since version 2: a buffer of the 64 bytes above is still accepted. */
	__u64 program_inode;  /* of the executable */
	__u32 program_device; /* of the file system that it is on: major << 20 | minor */
	__u32 reserved;
};

/* The state of a connection for one provider, as in Windows' FWPS_CONNECTION_REDIRECT_STATE. */
enum waybill_state {
	WAYBILL_NOT_REDIRECTED = 0,
	WAYBILL_REDIRECTED_BY_SELF = 1,
	WAYBILL_REDIRECTED_BY_OTHER = 2,
	WAYBILL_PREVIOUSLY_REDIRECTED_BY_SELF = 3,
};

struct waybill_redirect_state {
	__u32 state; /* enum waybill_state, for the provider that the calling process belongs to */
	__u32 hops;  /* redirects of this flow so far */
};

#ifndef __bpf__
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

/*
 * The calls, by the names that they have on Windows too. They return 0, or the
 * error: errno's on Linux, Winsock's on Windows. *size is the room before, and
 * the length of the answer after.
 */

typedef int waybill_socket;

/* What a query returns for a connection that was not redirected. */
#define WAYBILL_E_NOT_REDIRECTED ENODATA

/* A buffer for records begins where a pointer may. */
#define WAYBILL_ALIGNED __attribute__((aligned(8)))

static inline int waybill_getsockopt(waybill_socket s, int option, void *value, size_t *size)
{
	socklen_t n = (socklen_t)*size;

	if (getsockopt(s, SOL_WAYBILL, option, value, &n))
		return errno;
	*size = n;
	return 0;
}

/* On an accepted socket. */
static inline int waybill_query_redirect_records(waybill_socket s, void *records, size_t *size)
{
	return waybill_getsockopt(s, WAYBILL_REDIRECT_RECORDS, records, size);
}

static inline int waybill_query_redirect_context(waybill_socket s, void *context, size_t *size)
{
	return waybill_getsockopt(s, WAYBILL_REDIRECT_CONTEXT, context, size);
}

static inline int waybill_query_original_destination(waybill_socket s, struct sockaddr_storage *dst, size_t *size)
{
	*size = sizeof(*dst);
	return waybill_getsockopt(s, WAYBILL_ORIGINAL_DST, dst, size);
}

/* On a new socket, before bind() and connect(). */
static inline int waybill_set_redirect_records(waybill_socket s, const void *records, size_t size)
{
	return setsockopt(s, SOL_WAYBILL, WAYBILL_REDIRECT_RECORDS, records, (socklen_t)size) ? errno : 0;
}
#endif /* __bpf__ */

#endif /* _WIN32 */
#endif /* WAYBILL_H */
