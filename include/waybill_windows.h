/* SPDX-License-Identifier: MIT */
/*
 * What include/waybill.h is on Windows, which has the records in its kernel:
 * the functions alone. Link with ws2_32. They wait for the answer, also on a
 * socket that is overlapped. Setting needs an elevated process.
 */
#ifndef WAYBILL_WINDOWS_H
#define WAYBILL_WINDOWS_H

#include <stddef.h>
#include <string.h>
#include <winsock2.h>
#include <ws2tcpip.h>

typedef SOCKET waybill_socket;

/* What a query returns for a connection that was not redirected, among others: see docs/windows.md. */
#define WAYBILL_E_NOT_REDIRECTED WSAEINVAL

/* A buffer for records begins where a pointer may: Winsock fails with WSAEFAULT otherwise. */
#ifdef _MSC_VER
#define WAYBILL_ALIGNED __declspec(align(8))
#else
#define WAYBILL_ALIGNED __attribute__((aligned(8)))
#endif

/* A buffer of this size holds what any redirector has been seen to attach, by far. */
#define WAYBILL_RECORDS_MAX (64 << 10)
#define WAYBILL_CONTEXT_MAX (64 << 10)

static inline int waybill_ioctl(waybill_socket s, DWORD code, const void *in, size_t in_size, void *out, size_t *size)
{
	DWORD n = 0;

	if (WSAIoctl(s, code, (void *)in, (DWORD)in_size, out, size ? (DWORD)*size : 0, &n, NULL, NULL))
		return WSAGetLastError();
	if (!size)
		return 0; /* and n means nothing */
	*size = n;
	return n ? 0 : WAYBILL_E_NOT_REDIRECTED;
}

/* On an accepted socket. */
static inline int waybill_query_redirect_records(waybill_socket s, void *records, size_t *size)
{
	return waybill_ioctl(s, 0x980000DC /* SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS */, NULL, 0, records, size);
}

static inline int waybill_query_redirect_context(waybill_socket s, void *context, size_t *size)
{
	return waybill_ioctl(s, 0x980000DD /* SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT */, NULL, 0, context, size);
}

/* The context, if it has the form of Microsoft's sample, or what SO_ORIGINAL_DST answers. */
static inline int waybill_query_original_destination(waybill_socket s, struct sockaddr_storage *dst, size_t *size)
{
	struct sockaddr_storage context[2]; /* remote and local address */
	size_t n = sizeof(context);
	int err = waybill_query_redirect_context(s, context, &n), option_size = sizeof(*dst);

	if (!err && (n == sizeof(context) || n == sizeof(context[0])) &&
	    (context[0].ss_family == AF_INET || context[0].ss_family == AF_INET6)) {
		memcpy(dst, context, sizeof(*dst));
	} else if (getsockopt(s, SOL_SOCKET, 0x300F /* SO_ORIGINAL_DST */, (char *)dst, &option_size)) {
		return err ? err : WSAGetLastError();
	}
	*size = dst->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	return 0;
}

/* On a new socket, before bind() and connect(). There is no way to set none. */
static inline int waybill_set_redirect_records(waybill_socket s, const void *records, size_t size)
{
	return size ? waybill_ioctl(s, 0x980000DE /* SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS */, records, size, NULL,
				    NULL)
		    : WSAEINVAL;
}

#endif /* WAYBILL_WINDOWS_H */
