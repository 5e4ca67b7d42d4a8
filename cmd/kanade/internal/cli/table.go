package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// table prints rows in columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...any) table {
	t := table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	t.row(header...)
	return t
}

func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = cell(c)
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(texts, "\t"), "\t "))
}

// end prints the table.
func (t table) end() error { return t.w.Flush() }

// cell is one line of text for a value; what is unknown or empty is "-".
func cell(v any) string {
	var text string
	switch v := v.(type) {
	case nil:
	case *time.Time:
		if v != nil {
			text = when(*v)
		}
	case time.Time:
		text = when(v)
	case *int:
		if v != nil {
			text = fmt.Sprint(*v)
		}
	case []string:
		text = strings.Join(v, ",")
	case time.Duration:
		text = short(v)
	default:
		text = fmt.Sprint(v)
	}
	text = strings.Join(strings.Fields(printable(text)), " ")
	if text == "" {
		return "-"
	}
	return text
}

// when is a time of the log in the zone of the terminal.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// short is a duration with about three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// printable takes out what would command the terminal rather than be read in it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text)
}

// plural is "1 endpoint", "2 endpoints".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// printJSON prints a document, indented.
func (a *app) printJSON(doc []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "  "); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(a.out)
	return err
}

// printValue prints what the command itself put together, as JSON.
func (a *app) printValue(v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.printJSON(doc)
}
