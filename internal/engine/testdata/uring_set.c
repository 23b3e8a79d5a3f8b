/*
 * usage: uring_set ring|sqpoll BLOB: set records, in hex, on a new TCP socket
 * by io_uring, and print the errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "waybill.h"

#define SOCKET_URING_OP_SETSOCKOPT 3

/* What struct io_uring_sqe has for it since Linux 6.7: the library's header can be older. */
struct setsockopt_sqe {
	uint8_t opcode, flags;
	uint16_t ioprio;
	int32_t fd;
	uint32_t cmd_op, reserved;
	uint32_t level, optname;
	uint32_t len, op_flags;
	uint64_t user_data;
	uint16_t buf_index, personality;
	uint32_t optlen;
	uint64_t optval, reserved2;
};

int main(int argc, char **argv)
{
	struct io_uring_params params = { 0 };
	struct setsockopt_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	unsigned char blob[WAYBILL_RECORDS_MAX];
	size_t size = 0;
	int err;

	if (argc != 3)
		return 2;
	while (size < sizeof(blob) && sscanf(argv[2] + 2 * size, "%2hhx", &blob[size]) == 1)
		size++;
	if (!strcmp(argv[1], "sqpoll"))
		params.flags = IORING_SETUP_SQPOLL;
	err = io_uring_queue_init_params(8, &ring, &params);
	if (err) {
		fprintf(stderr, "io_uring: %s\n", strerror(-err));
		return 1;
	}
	sqe = (struct setsockopt_sqe *)io_uring_get_sqe(&ring);
	*sqe = (struct setsockopt_sqe){
		.opcode = IORING_OP_URING_CMD,
		.fd = socket(AF_INET, SOCK_STREAM, 0),
		.cmd_op = SOCKET_URING_OP_SETSOCKOPT,
		.level = SOL_WAYBILL,
		.optname = WAYBILL_REDIRECT_RECORDS,
		.optlen = size,
		.optval = (uintptr_t)blob,
	};
	io_uring_submit(&ring);
	err = io_uring_wait_cqe(&ring, &cqe);
	if (err)
		return 1;
	printf("%s\n", cqe->res ? strerrorname_np(-cqe->res) : "ok");
	io_uring_queue_exit(&ring);
	return 0;
}
