package readmodel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"kanade/libs/events"
)

// Digest is a SHA-256 in lower-case hex for each SQL table that LOG feeds, over its rows in the order of their primary
// key, every value with its type and length. Two files that applied the same log have the same digests.
func (w *Writer) Digest(ctx context.Context) (map[string]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	digests := map[string]string{}
	for _, t := range tables() {
		if t.stream != events.StreamLog {
			continue
		}
		for _, r := range t.relations {
			digest, err := w.db.digest(ctx, r)
			if err != nil {
				return nil, fmt.Errorf("digest table %s: %w", r.name, err)
			}
			digests[r.name] = digest
		}
	}
	return digests, nil
}

func (d *database) digest(ctx context.Context, r *relation) (string, error) {
	order := strings.Join(r.columnNames()[:r.key], ", ")
	found, err := d.conn.QueryContext(ctx, r.all()+" ORDER BY "+order)
	if err != nil {
		return "", err
	}
	defer found.Close()
	values, into := make([]any, len(r.columns)), make([]any, len(r.columns))
	for i := range values {
		into[i] = &values[i]
	}
	h := sha256.New()
	for found.Next() {
		if err := found.Scan(into...); err != nil {
			return "", err
		}
		for _, v := range values {
			text := fmt.Sprint(v)
			fmt.Fprintf(h, "%T %d %s\n", v, len(text), text)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), found.Err()
}
