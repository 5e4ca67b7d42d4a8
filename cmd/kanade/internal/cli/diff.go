package cli

import "strings"

// maxDiff bounds the work of a difference, in pairs of lines; texts that differ in more are shown one after the other.
const maxDiff = 4 << 20

// contextLines are shown around what differs.
const contextLines = 2

// difference is how one text becomes another, line by line: what goes begins with "- ", what comes with "+ ", and what
// stands around it with two blanks. Empty where they are equal.
func difference(before, after string) []string {
	a, b := lines(before), lines(after)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	all := make([]string, 0, len(a)+len(b))
	same := func(list []string) {
		for _, line := range list {
			all = append(all, "  "+line)
		}
	}
	same(a[:head])
	all = append(all, between(a[head:len(a)-tail], b[head:len(b)-tail])...)
	same(a[len(a)-tail:])
	return around(all)
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// between goes by a longest common subsequence.
func between(a, b []string) []string {
	var out []string
	if len(a)*len(b) > maxDiff {
		for _, line := range a {
			out = append(out, "- "+line)
		}
		for _, line := range b {
			out = append(out, "+ "+line)
		}
		return out
	}
	common := make([][]int, len(a)+1) // of a from i on and b from j on
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if common[i][j] = max(common[i+1][j], common[i][j+1]); a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}

// around leaves out what is far from every difference; an ellipsis stands for what lies between two.
func around(all []string) []string {
	near := make([]bool, len(all))
	for i, line := range all {
		if line[0] == ' ' {
			continue
		}
		for k := max(0, i-contextLines); k <= min(len(all)-1, i+contextLines); k++ {
			near[k] = true
		}
	}
	var out []string
	for i, line := range all {
		switch {
		case near[i]:
			out = append(out, line)
		case len(out) > 0 && out[len(out)-1] != "  …":
			out = append(out, "  …")
		}
	}
	if n := len(out); n > 0 && out[n-1] == "  …" {
		out = out[:n-1]
	}
	return out
}
