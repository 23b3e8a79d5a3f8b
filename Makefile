# make demo    see it work: two proxies in a chain, as root
# make test    install what the tests need and run them all, as root
# make lint    formatting and static checks
# make generate  rebuild the kernel programs; CI compares the result
# make bench   what a hook, a redirect, a SET and a QUERY cost

CLANG_VERSION := 19
export BPF2GO_CC := clang-$(CLANG_VERSION)
export BPF2GO_STRIP := llvm-strip-$(CLANG_VERSION)
export BPF2GO_CFLAGS := -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wpadded \
	-idirafter /usr/include/$(shell uname -m)-linux-gnu -fdebug-prefix-map=$(CURDIR)=.

generate:
	go generate ./...
