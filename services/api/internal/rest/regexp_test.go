package rest

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"kanade/libs/readmodel"
)

func TestRegexpClassesKnowUnicode(t *testing.T) {
	for _, c := range []struct {
		re, text string
		want     bool
	}{
		{`^Gr\w+e$`, "Größe", true},
		{`vol \d`, "vol ٣", true},
		{`^vol\sC$`, "vol\u00a0C", true},
		{`^\s$`, "\v", true},
		{`\S`, "\u2028\u00a0\u0085 ", false},
		{`\W`, "Größe", false},
		{`\D`, "٣", false},
		{`^\D$`, "ö", true},
		{`^[\d]$`, "٣", true},
		{`^[^\d]$`, "٣", false},
		{`^[\D]$`, "٣", false},
		{`^[^\D]$`, "٣", true},
		{`^[\d٣\D]$`, "٣", true},
		{`^[\W_]+$`, "_–_", true},
		{`^[\W_]+$`, "ö", false},
		{`^[^\W\d_]+$`, "Größe", true},
		{`[^\W\d_]`, "٣_–", false},
		{`^[^\S\n]+$`, "\u00a0\t", true},
		{`^[^\S\n]$`, "\n", false},
		{`^[\w.-]+$`, "größe-1.0", true},
		{`^[\w-.]+$`, "ö-.", true},
		{`^[\w-z]+$`, "!", false},
		{`^[\s-z]+$`, "\u00a0-z", true},
		{`^[]\w]+$`, "]ö", true},
		{`^[^]\w]$`, "ö", false},
		{`^[[:alpha:]\d]+$`, "a٣", true},
		{`^[[:alpha:]\d]+$`, "ö", false},
		{`^[[:\w]+$`, "[:ö", true},
		{`^[\]\w]+$`, "]ö", true},
		{`^[\\w]+$`, `\w`, true},
		{`^[\\w]+$`, "ö", false},
		{`^\[\w]$`, "[ö]", true},
		{`(?i)^GR\wSSE$`, "grösse", true},
		{`^\w{5}$`, "Größe", true},
		{`^\w$`, "Ⓐ", true},

		// Not these classes.
		{`^[0-9]$`, "٣", false},
		{`^[[:digit:]]$`, "٣", false},
		{`^[[:word:]]$`, "ö", false},
		{`^\\d$`, `\d`, true},
		{`^\\\d$`, `\٣`, true},
		{`^\Q\d\E\d$`, `\d٣`, true},
		{`^\Q[\E\w\Q]\d`, `[ö]\d`, true},
		{`^\\Q\w$`, `\Qö`, true},
		{`^\pL\p{Lu}\PL$`, "öÖ1", true},

		// Boundaries know only ASCII; in Rust these are the other way round.
		{`B\b`, "Bücher", true},
		{`\bÖl`, "ein Öl", false},
	} {
		re, err := compileRegexp(c.re)
		if err != nil {
			t.Errorf("%s: %v", c.re, err)
		} else if re.MatchString(c.text) != c.want {
			t.Errorf("%s (%s) in %q: expected %v", c.re, re, c.text, c.want)
		}
	}
}

// TestRegexpClassesAreThoseOfRust compares every character with the definitions of the Rust crate, also when case is folded.
func TestRegexpClassesAreThoseOfRust(t *testing.T) {
	for name, in := range map[string]func(rune) bool{
		"d": func(r rune) bool { return unicode.Is(unicode.Nd, r) },
		"s": func(r rune) bool { return unicode.Is(unicode.White_Space, r) },
		"w": func(r rune) bool {
			return unicode.In(r, unicode.L, unicode.Nl, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Pc, unicode.Join_Control)
		},
	} {
		var members, others strings.Builder
		for r := range rune(unicode.MaxRune + 1) {
			if !utf8.ValidRune(r) {
				continue
			}
			if in(r) {
				members.WriteRune(r)
			} else {
				others.WriteRune(r)
			}
		}
		negated := strings.ToUpper(name)
		for _, class := range []string{`\` + name, `[\` + name + `]`, `[^\` + negated + `]`, `(?i)\` + name, `(?i)[^\` + negated + `]`} {
			contains(t, class, members.String(), others.String())
		}
		for _, class := range []string{`\` + negated, `[\` + negated + `]`, `[^\` + name + `]`, `(?i)\` + negated, `(?i)[\` + negated + `]`} {
			contains(t, class, others.String(), members.String())
		}
	}
}

// contains checks that a class holds all characters of one text and none of another.
func contains(t *testing.T, class, all, none string) {
	t.Helper()
	for expression, text := range map[string]string{`^(?:` + class + `)+$`: all, class: none} {
		re, err := compileRegexp(expression)
		if err != nil {
			t.Fatal(err)
		}
		if re.MatchString(text) != (text == all) {
			t.Errorf("%s: wrong for some character", expression)
		}
	}
}

func TestRegexpWithoutClassesStaysAsGiven(t *testing.T) {
	for _, s := range []string{`^pc-1$`, `^pc\.1$`, `\Q\d\E`, `[0-9]+`, `\\d`, `\pL\p{Greek}[^\PL]`, `\bx\B`, `[[:word:]]`, `\x{41}\n`} {
		if re, err := compileRegexp(s); err != nil || re.String() != s {
			t.Errorf("%s: got %v, %v", s, re, err)
		}
	}
	// What the read model looks up by its index.
	re, err := compileRegexp(`^job-1$`)
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := (&readmodel.ResultFilter{JobID: re}).Countable(); !ok || id != "job-1" {
		t.Errorf("job-1 is not looked up: %q", id)
	}
}

func TestRegexpErrorsNameTheGivenExpression(t *testing.T) {
	for _, s := range []string{`\w(`, `\w[z-a]`, `[a-\w]`, `\w{1001}`, `(?:\w{100}){100}`, `\w**`, `\y`, "\\w\xff", `[\w`, `\w\`} {
		_, want := regexp.Compile(s)
		if _, err := compileRegexp(s); want == nil || err == nil || err.Error() != want.Error() {
			t.Errorf("%s: expected %v, got %v", s, want, err)
		}
	}
}

func TestRegexpIsBounded(t *testing.T) {
	for s, want := range map[string]bool{
		`\w{1000}`: true, `^[^\W_]{1000}$`: true, strings.Repeat(`\w`, 1000): true, strings.Repeat(`[^\W_]+-`, 15): true,
		strings.Repeat(`\w`, 3000): false, strings.Repeat(`[\W]`, 30): false, `[` + strings.Repeat(`\W`, 30_000) + `]`: false,
	} {
		_, err := compileRegexp(s)
		if (err == nil) != want {
			t.Errorf("%.20s…: got %.100v", s, err)
		}
		if err != nil && err.Error() != "error parsing regexp: expression too large: `"+s+"`" {
			t.Errorf("%.20s…: does not name the expression: %.100v", s, err)
		}
	}
}

func TestLongRegexp(t *testing.T) {
	names := strings.Repeat("pc-00000|", maxExpression/9)
	if _, err := compileRegexp(names); err != nil {
		t.Fatal(err)
	}
	_, err := compileRegexp(names + "pc-00000")
	if err == nil || err.Error() != "it has 65537 bytes, the longest has 65536" {
		t.Fatal(err)
	}
}

// FuzzRegexp: what Go accepts is accepted, and means the same of ASCII, where only \s differs, by the vertical tab.
func FuzzRegexp(f *testing.F) {
	for _, s := range []string{
		`Gr\w+e`, `[^\W\d_]+`, `[\w.-]`, `[\w-.]`, `\\d`, `\Q\d\E`, `\Q\d`, `[\d]`, `[^\d]`, `\D`, `\pL\w`, `[[:alpha:]\w]`, `[[:\s]`,
		`[]\w]`, `[^]\W]`, `(?i)k\W`, `\bfoo\b\S`, `[\]\w]`, `\x{41}\d`, `[a\--\s]`, `[\s-a]`, `(?P<n>\w)|[^\S]`, `\[\w`, `[\Wa-c]*?`,
	} {
		f.Add(s, "foo_1 B-]\\d[:k")
	}
	f.Fuzz(func(t *testing.T, expression, text string) {
		plain, err := regexp.Compile(expression)
		re, failure := compileRegexp(expression)
		if err == nil && failure != nil && len(expression) > 40 && strings.Contains(failure.Error(), "too large") {
			return // more than 19 classes may be larger than maxClasses
		}
		if len(expression) > maxExpression {
			return
		}
		if (err == nil) != (failure == nil) {
			t.Fatalf("%q: Go says %v, we say %v", expression, err, failure)
		}
		if err != nil || strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf || r == '\v' }) {
			return
		}
		if want, got := plain.FindStringSubmatchIndex(text), re.FindStringSubmatchIndex(text); !slices.Equal(want, got) {
			t.Fatalf("%q (%q) in %q: expected %v, got %v", expression, re, text, want, got)
		}
	})
}
