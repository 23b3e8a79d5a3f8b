/* SPDX-License-Identifier: MIT */
/*
 * The ancillary data of UDP: records and context come with the first datagram
 * of a flow, and go with the first of the proxied one.
 */
#include <stdlib.h>
#include <string.h>

#include "standin.h"

/* The time that a receive waits here for a datagram; Wine completes later ones by itself, and they have no records. */
enum {
	PATIENCE = 300
}; /* milliseconds */

static int readable(SOCKET s)
{
	struct timeval patience = { .tv_usec = PATIENCE * 1000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(s, &set);
	return real.select(0, &set, NULL, NULL, &patience) == 1;
}

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

static int wants_of(SOCKET s)
{
	struct socket *k;
	int wants;

	lock_sockets();
	k = socket_of(s, 0);
	wants = k ? k->wants : 0;
	unlock_sockets();
	return wants;
}

int WINAPI receive_message(SOCKET s, LPWSAMSG m, LPDWORD n, LPWSAOVERLAPPED o, LPWSAOVERLAPPED_COMPLETION_ROUTINE r)
{
	static uint8_t blob[MAX_BLOB];
	static SRWLOCK blob_lock = SRWLOCK_INIT;
	int wants = wants_of(s), err, first, family;
	ULONG room = m->Control.len;
	uint32_t size;

	if (!wants || !readable(s))
		return real.WSARecvMsg(s, m, n, o, r);
	err = real.WSARecvMsg(s, m, n, o, r);
	if (err || !m->name)
		return err;
	family = m->name->sa_family;
	AcquireSRWLockExclusive(&blob_lock);
	m->Control.len = 0;
	if (!find_datagram_records(m->name, QUERY_RECORDS, blob, &size, &first) && wants & 1)
		put(m, room, family, OPTION_RECORDS, blob, size);
	if (!find_datagram_records(m->name, QUERY_CONTEXT, blob, &size, &first) && wants & 2)
		put(m, room, family, OPTION_CONTEXT, blob, size);
	ReleaseSRWLockExclusive(&blob_lock);
	return 0;
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
