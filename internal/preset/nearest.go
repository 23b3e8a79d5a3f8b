//go:build linux

package preset

// nearest returns the name that word was probably meant to be, or "".
func nearest(word string, names []string) string {
	best, bestDistance := "", 1+len(word)/3
	for _, name := range names {
		if d := distance(word, name); d <= bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is Levenshtein's: the insertions, deletions and exchanges of one
// letter that make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // distances from the part of a so far to the beginnings of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			exchange := diagonal
			if a[i] != b[j] {
				exchange++
			}
			diagonal = row[j+1]
			row[j+1] = min(exchange, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
