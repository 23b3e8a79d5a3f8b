/*
 * usage: uring ring|sqpoll|async HOST PORT: connect by io_uring and print what the
 * server says.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct io_uring_params params = { 0 };
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	char buf[4096];
	ssize_t n;
	int fd, err;

	if (argc != 4)
		return 2;
	inet_pton(AF_INET, argv[2], &addr.sin_addr);
	addr.sin_port = htons(atoi(argv[3]));
	if (!strcmp(argv[1], "sqpoll"))
		params.flags = IORING_SETUP_SQPOLL;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	err = io_uring_queue_init_params(8, &ring, &params);
	if (err) {
		fprintf(stderr, "io_uring: %s\n", strerror(-err));
		return 1;
	}
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_connect(sqe, fd, (struct sockaddr *)&addr, sizeof(addr));
	if (!strcmp(argv[1], "async")) /* by a worker thread of the kernel's */
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	io_uring_submit(&ring);
	err = io_uring_wait_cqe(&ring, &cqe);
	if (err || cqe->res) {
		fprintf(stderr, "connect: %s\n", strerror(err ? -err : -cqe->res));
		return 1;
	}
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, n, stdout);
	io_uring_queue_exit(&ring);
	return 0;
}
