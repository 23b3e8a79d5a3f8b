/* SPDX-License-Identifier: MIT */
/*
 * The ancillary data of UDP: records and context come with the first datagram
 * of a flow, and go with the first of the proxied one.
 */
#include <stdlib.h>
#include <string.h>

#include "standin.h"

/* put appends a control message. What finds no room is left out, and MSG_CTRUNC says so. */
static void put(LPWSAMSG m, ULONG room, int family, int type, const void *data, uint32_t size)
{
	WSACMSGHDR *h = (WSACMSGHDR *)(m->Control.buf + m->Control.len);

	if (m->Control.len + WSA_CMSG_SPACE(size) > room) {
		m->dwFlags |= MSG_CTRUNC;
		return;
	}
	h->cmsg_len = WSA_CMSG_LEN(size);
	h->cmsg_level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	h->cmsg_type = type;
	memcpy(WSA_CMSG_DATA(h), data, size);
	m->Control.len += WSA_CMSG_SPACE(size);
}

/* receive is one that waits for its datagram in a thread: what Wine completes by itself can not be added to. */
struct receive {
	SOCKET s;
	LPWSAMSG m;
	OVERLAPPED *o;
	HANDLE port;
	ULONG_PTR key;
	int wants, cancelled;
	struct receive *next;
};

static struct receive *receives;
static SRWLOCK lock = SRWLOCK_INIT;

static int is_cancelled(struct receive *r)
{
	int cancelled;

	AcquireSRWLockShared(&lock);
	cancelled = r->cancelled;
	ReleaseSRWLockShared(&lock);
	return cancelled;
}

/* cancel_receives ends one receive of a socket, or all, soon. */
BOOL cancel_receives(SOCKET s, OVERLAPPED *o)
{
	BOOL found = FALSE;

	AcquireSRWLockExclusive(&lock);
	for (struct receive *r = receives; r; r = r->next)
		if (r->s == s && (!o || r->o == o))
			found = r->cancelled = TRUE;
	ReleaseSRWLockExclusive(&lock);
	return found;
}

/* add_control says what the first datagram of a flow comes with. */
static void add_control(struct receive *r, ULONG room)
{
	static uint8_t blob[MAX_BLOB];
	static SRWLOCK blob_lock = SRWLOCK_INIT;
	int first, family = r->m->name->sa_family;
	uint32_t size;

	AcquireSRWLockExclusive(&blob_lock);
	r->m->Control.len = 0;
	if (!find_datagram_records(r->m->name, QUERY_RECORDS, blob, &size, &first) && r->wants & 1)
		put(r->m, room, family, OPTION_RECORDS, blob, size);
	if (!find_datagram_records(r->m->name, QUERY_CONTEXT, blob, &size, &first) && r->wants & 2)
		put(r->m, room, family, OPTION_CONTEXT, blob, size);
	ReleaseSRWLockExclusive(&blob_lock);
}

static DWORD wait_readable(struct receive *r)
{
	struct timeval slice = { .tv_usec = 10000 };
	fd_set set;
	int n = 0;

	while (!n) {
		if (is_cancelled(r))
			return WSA_OPERATION_ABORTED;
		FD_ZERO(&set);
		FD_SET(r->s, &set);
		n = real.select(0, &set, NULL, NULL, &slice);
	}
	return n < 0 ? WSA_OPERATION_ABORTED : 0;
}

static DWORD WINAPI run_receive(void *arg)
{
	struct receive *r = arg, **at;
	DWORD n = 0, error = wait_readable(r);
	ULONG room = r->m->Control.len;

	if (!error && real.WSARecvMsg(r->s, r->m, &n, NULL, NULL))
		error = GetLastError();
	if (!error)
		add_control(r, room);
	AcquireSRWLockExclusive(&lock);
	for (at = &receives; *at != r; at = &(*at)->next)
		;
	*at = r->next;
	ReleaseSRWLockExclusive(&lock);
	complete(r->port, r->key, r->o, error, n);
	free(r);
	return 0;
}

int WINAPI receive_message(SOCKET s, LPWSAMSG m, LPDWORD n, LPWSAOVERLAPPED o, LPWSAOVERLAPPED_COMPLETION_ROUTINE f)
{
	struct receive *r = calloc(1, sizeof(*r));
	struct socket *k;

	*r = (struct receive){ .s = s, .m = m, .o = o };
	lock_sockets();
	k = socket_of(s, 0);
	if (k) {
		r->wants = k->wants;
		r->port = k->port;
		r->key = k->key;
	}
	unlock_sockets();
	if (!r->wants || !o || !m->name) {
		free(r);
		return real.WSARecvMsg(s, m, n, o, f);
	}
	o->Internal = PENDING;
	AcquireSRWLockExclusive(&lock);
	r->next = receives;
	receives = r;
	ReleaseSRWLockExclusive(&lock);
	CloseHandle(CreateThread(NULL, 0, run_receive, r, 0, NULL));
	WSASetLastError(WSA_IO_PENDING);
	return SOCKET_ERROR;
}

/* records_in finds the records of a datagram that is sent. */
static struct bytes records_in(LPWSAMSG m)
{
	for (WSACMSGHDR *h = m->Control.len ? WSA_CMSG_FIRSTHDR(m) : NULL; h; h = WSA_CMSG_NXTHDR(m, h))
		if ((h->cmsg_level == IPPROTO_IP || h->cmsg_level == IPPROTO_IPV6) && h->cmsg_type == OPTION_RECORDS)
			return (struct bytes){ h->cmsg_len - WSA_CMSG_LEN(0), WSA_CMSG_DATA(h) };
	return (struct bytes){ 0 };
}

int WINAPI send_message(SOCKET s, LPWSAMSG m, DWORD flags, LPDWORD n, LPWSAOVERLAPPED o,
			LPWSAOVERLAPPED_COMPLETION_ROUTINE r)
{
	struct bytes records = records_in(m);
	struct socket *k;

	if (records.size) {
		if (!valid_records(records.data, records.size)) {
			WSASetLastError(WSAEINVAL);
			return SOCKET_ERROR;
		}
		lock_sockets();
		k = socket_of(s, 1);
		if (k) {
			free(k->carried.data);
			k->carried = (struct bytes){ records.size, malloc(records.size) };
			memcpy(k->carried.data, records.data, records.size);
		}
		unlock_sockets();
	}
	return WSASendTo(s, m->lpBuffers, m->dwBufferCount, n, flags, m->name, m->namelen, o, r);
}
