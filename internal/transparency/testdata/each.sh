# usage: each.sh BINARY PATTERN
# Runs Go's tests one by one, in a process each: one that waits for ever ends no other.
"$1" -test.list "$2" | grep -E '^(Test|Example)' | while read -r test; do
	"$1" -test.short -test.v -test.timeout=10s -test.run="^$test\$" </dev/null
done
