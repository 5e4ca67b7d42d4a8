package readmodel

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"kanade/libs/events"
)

// Outputs are searched by words. The words of a run stand under the LOG sequence of its end, which is its only one: where
// a truer end takes the place of one, or the run is forgotten, the old words lead to no row.
//
// To write words costs more than to write the run itself, so that is not done on the way of the log: the writer does it
// in steps when nothing else is waiting, and searched says how far it is. What stands there is a function of the rows and of
// that number, and belongs to no digest.
//
// An index of words reads all that it has to compare: words that are common each and rare together would cost what the
// history is long. So each run has one more word, that of its span of the log, and a search goes span by span.
//
// A word is what stands between blanks and punctuation, in any case and without accents. Text in languages that do not
// separate words is found by the beginnings of its runs of letters only.
const wordSchema = `CREATE VIRTUAL TABLE result_words USING fts5(
	stdout, stderr, span, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE searched (sequence INTEGER NOT NULL);
INSERT INTO searched VALUES (0);
`

// wordSpan is how many sequences of the log have the same word of their span, and what one query goes through at most.
const wordSpan = 1 << 17

// spanWord is the word of a sequence's span. Its first character is in private use, and not one that people type.
func spanWord(sequence int64) string { return "\ue000" + strconv.FormatInt(sequence/wordSpan, 10) }

const (
	// selectWords gives the ends of runs of one span that match, the last first.
	selectWords = "SELECT rowid FROM result_words WHERE result_words MATCH ? AND rowid < ? AND rowid >= ? ORDER BY rowid DESC LIMIT ?"
	// selectNextWords is the last sequence before one that has words.
	selectNextWords = "SELECT rowid FROM result_words WHERE rowid < ? ORDER BY rowid DESC LIMIT 1"
)

// Words is a search in FTS5's own syntax, made by ParseWords.
type Words string

// maxWords bounds a search.
const maxWords = 32

// ParseWords reads what people type: all words must be in an output, in any order; "several words" in quotes stand side
// by side; a star at the end of a word stands for its rest. Blank text is no search. An error says what is wrong.
func ParseWords(text string) (Words, error) {
	var terms []string
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		var term string
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			if term, rest, ok = strings.Cut(quoted, `"`); !ok {
				return "", errors.New(`a quote is not closed`)
			}
		} else {
			end := strings.IndexFunc(rest, func(c rune) bool { return unicode.IsSpace(c) || c == '"' })
			if end < 0 {
				end = len(rest)
			}
			term, rest = rest[:end], rest[end:]
		}
		open, prefix := strings.CutSuffix(term, "*")
		if !strings.ContainsFunc(open, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsNumber(c) }) {
			return "", fmt.Errorf("%q holds no letter or digit to search for", term)
		}
		open = `"` + strings.ReplaceAll(open, "\x00", " ") + `"`
		if prefix {
			open += "*"
		}
		if terms = append(terms, open); len(terms) > maxWords {
			return "", fmt.Errorf("more than %d words", maxWords)
		}
	}
	return Words(strings.Join(terms, " AND ")), nil
}

// Searched is the LOG sequence up to which the outputs of runs that have ended can be searched by words: what is applied,
// where no words are still to be written.
func (r *Reader) Searched(ctx context.Context) (uint64, error) {
	const query = "SELECT CASE WHEN EXISTS (SELECT 1" + unwritten + ") THEN (SELECT sequence FROM searched)" +
		" ELSE COALESCE((SELECT sequence FROM checkpoints WHERE stream = ?), 0) END"
	return one(ctx, r, func(scan func(...any) error) (n uint64, err error) { return n, scan(&n) }, query, events.StreamLog)
}

// Bounds of one step of WriteWords: a message that comes meanwhile waits for it, about 10 ms.
const (
	wordStep      = 200
	wordStepBytes = 256 << 10
)

// WriteWords makes the outputs of some further runs searchable, and reports whether more are to be done. It is for when
// nothing waits to be applied; a crash in between loses nothing.
func (w *Writer) WriteWords(ctx context.Context) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var any bool
	err = w.db.conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1"+unwritten+")").Scan(&any)
	if err == nil && any {
		err = w.db.transaction(func() (err error) {
			more, err = w.db.writeWords(context.WithoutCancel(ctx))
			return err
		})
	}
	if isDouble(err) { // each run's words are written once, in one transaction with the note of it
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return false, fmt.Errorf("write words of outputs: %w", err)
	}
	return more, nil
}

// unwritten finds the runs whose words are still to be written.
const unwritten = " FROM results INDEXED BY results_ended WHERE " + resultEnded + " AND sequence > (SELECT sequence FROM searched)"

func (d *database) writeWords(ctx context.Context) (more bool, err error) {
	insert, err := d.conn.PrepareContext(ctx, "INSERT INTO result_words (rowid, stdout, stderr, span) VALUES (?, ?, ?, ?)")
	if err != nil {
		return false, err
	}
	defer insert.Close()
	runs, err := d.conn.QueryContext(ctx, "SELECT sequence, stdout, stderr"+unwritten+" ORDER BY sequence LIMIT ?", wordStep)
	if err != nil {
		return false, err
	}
	defer runs.Close()
	var last int64
	rows, bytes := 0, 0
	for ; bytes < wordStepBytes && runs.Next(); rows++ {
		var stdout, stderr string
		if err := runs.Scan(&last, &stdout, &stderr); err != nil {
			return false, err
		}
		if stdout == "" && stderr == "" {
			continue
		}
		bytes += len(stdout) + len(stderr)
		if _, err := insert.ExecContext(ctx, last, stdout, stderr, spanWord(last)); err != nil {
			return false, err
		}
	}
	if err := errors.Join(runs.Err(), runs.Close()); err != nil || rows == 0 {
		return false, err
	}
	_, err = d.conn.ExecContext(ctx, "UPDATE searched SET sequence = ?", last)
	return rows == wordStep || bytes >= wordStepBytes, err
}
