// Package capture keeps what a script writes, within bounds whatever it writes.
//
// A Capture takes one output stream. It holds at most 48 KiB in memory; from the moment the stream outgrows what an
// event carries, the stream also goes to a file: the first half of events.MaxObjectOutput as it comes, and behind it a
// ring with the newest bytes. Close puts the ring in order, so that the file is the stream, or its head and tail with the
// cut marked. A file that can't be written costs the object, never the run: the script goes on and its result says what
// fits in the event.
package capture

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"kanade/libs/events"
	"kanade/services/agent/internal/domain"
)

// Layout of the file, in bytes.
const (
	fileHead = events.MaxObjectOutput / 2
	fileRing = events.MaxObjectOutput - fileHead - domain.MaxCutMark
	tailSize = events.MaxInlineOutput / 2
)

// Capture is an io.Writer for one output stream. It is for one goroutine. Write never fails, so that a full disk does
// not end the script with a broken pipe.
type Capture struct {
	path  string
	total int64
	head  []byte
	// tail is a ring of the newest bytes; the byte that came as number n stands at n mod tailSize.
	tail []byte
	file *os.File
	err  error
}

// New makes a capture whose file, if it comes to need one, is path. A file that is there is overwritten.
func New(path string) *Capture { return &Capture{path: path} }

// Write takes the next bytes of the stream. The error is always nil.
func (c *Capture) Write(p []byte) (int, error) {
	if c.file == nil && c.err == nil && c.total+int64(len(p)) > events.MaxInlineOutput {
		if c.file, c.err = os.OpenFile(c.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600); c.err == nil {
			c.keep(c.head, 0)
		}
	}
	if c.file != nil && c.err == nil {
		c.keep(p, c.total)
	}
	c.remember(p)
	c.total += int64(len(p))
	return len(p), nil
}

// keep writes bytes of the stream that begin at offset at to where the file has them.
func (c *Capture) keep(p []byte, at int64) {
	for len(p) > 0 && c.err == nil {
		room, where := int64(fileHead)-at, at
		if room <= 0 {
			slot := (at - fileHead) % fileRing
			room, where = fileRing-slot, fileHead+slot
		}
		n := min(int64(len(p)), room)
		_, c.err = c.file.WriteAt(p[:n], where)
		p, at = p[n:], at+n
	}
}

func (c *Capture) remember(p []byte) {
	if room := events.MaxInlineOutput - len(c.head); room > 0 {
		c.head = append(c.head, p[:min(room, len(p))]...)
	}
	if c.total+int64(len(p)) <= events.MaxInlineOutput {
		return
	}
	if c.tail == nil {
		c.tail = make([]byte, tailSize)
		copyRing(c.tail, c.head[:min(c.total, int64(len(c.head)))], 0)
	}
	copyRing(c.tail, p, c.total)
}

// copyRing puts bytes that begin at number at into a ring.
func copyRing(ring, p []byte, at int64) {
	if over := len(p) - len(ring); over > 0 {
		p, at = p[over:], at+int64(over)
	}
	slot := int(at % int64(len(ring)))
	n := copy(ring[slot:], p)
	copy(ring, p[n:])
}

// newest is the tail in order.
func (c *Capture) newest() []byte {
	if c.tail == nil {
		return c.head
	}
	slot := c.total % tailSize
	return append(append(make([]byte, 0, tailSize), c.tail[slot:]...), c.tail[:slot]...)
}

// Close ends the capture. The output names object if the file holds what the text leaves out; upload is then that file,
// on disk for certain. An error is the file's: the output is good as it is, without an object.
func (c *Capture) Close(object string) (events.Output, *domain.Upload, error) {
	out := events.Output{Bytes: c.total}
	out.Text, out.Truncated = domain.Text(c.head, c.newest(), c.total)
	if !out.Truncated {
		return out, nil, nil
	}
	if c.file == nil && c.err == nil {
		// The raw bytes fit and their replacements did not.
		if c.file, c.err = os.OpenFile(c.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600); c.err == nil {
			c.keep(c.head, 0)
		}
	}
	sum, err := c.settle()
	if err != nil {
		return out, nil, fmt.Errorf("keep output %s: %w", object, err)
	}
	out.SHA256, out.Object = sum, object
	return out, &domain.Upload{File: c.path, Object: object}, nil
}

// Discard removes the file of a capture that nobody wants.
func (c *Capture) Discard() {
	if c.file != nil {
		_ = c.file.Close()
		_ = os.Remove(c.path)
	}
}

// settle leaves the final file at path and returns its digest.
func (c *Capture) settle() (string, error) {
	if c.err != nil {
		c.Discard()
		return "", c.err
	}
	defer c.file.Close()
	if c.total > fileHead+fileRing {
		return c.unroll()
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(c.file, 0, c.total)); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), c.file.Sync()
}

// unroll writes head, mark and ring in order to a second file and puts it in the first one's place.
func (c *Capture) unroll() (_ string, err error) {
	next, err := os.OpenFile(c.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	w := io.MultiWriter(next, sum)
	slot := (c.total - fileHead) % fileRing
	_, err = io.Copy(w, io.NewSectionReader(c.file, 0, fileHead))
	if err == nil {
		_, err = io.WriteString(w, domain.CutMark(c.total-fileHead-fileRing))
	}
	if err == nil {
		_, err = io.Copy(w, io.NewSectionReader(c.file, fileHead+slot, fileRing-slot))
	}
	if err == nil {
		_, err = io.Copy(w, io.NewSectionReader(c.file, fileHead, slot))
	}
	if err == nil {
		err = next.Sync()
	}
	if err = errors.Join(err, next.Close()); err != nil {
		_ = os.Remove(next.Name())
		return "", err
	}
	// An open file can't be replaced on Windows.
	if err := c.file.Close(); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), os.Rename(next.Name(), c.path)
}
