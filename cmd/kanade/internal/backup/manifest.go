package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kanade/libs/bus"
)

// format is the version of the directory's form.
const format = 1

const (
	manifestName    = "manifest.json"
	manifestSumName = "manifest.sha256"
)

// maxManifest bounds what is read as a manifest, in bytes.
const maxManifest = 64 << 20

// Manifest says what a backup holds.
type Manifest struct {
	// Format is that of the directory; another one than this program's is refused.
	Format int `json:"format"`
	// Kanade and Broker are the versions of the program that took it and of the broker that it was taken from.
	Kanade string `json:"kanade"`
	Broker string `json:"broker"`
	// TakenAt is when it was begun, by the broker's clock.
	TakenAt time.Time `json:"taken_at"`
	// Released is a sequence of EXEC: the log that was taken knows every command up to it.
	Released uint64 `json:"released"`
	// Streams in the order in which they were taken.
	Streams []Stream `json:"streams"`
	// Durables are consumers as they were before the first stream was taken.
	Durables []bus.Durable `json:"durables"`
}

// Stream is one stream of a backup, and its file.
type Stream struct {
	bus.Snapshot
	// Bytes and SHA256, lower-case hex, of the file.
	Bytes  int64  `json:"file_bytes"`
	SHA256 string `json:"file_sha256"`
}

// Of is the stream of a name, empty if the backup has none.
func (m Manifest) Of(name string) Stream {
	for _, s := range m.Streams {
		if s.Stream == name {
			return s
		}
	}
	return Stream{}
}

// Size is that of all files but the manifest, in bytes.
func (m Manifest) Size() (bytes int64) {
	for _, s := range m.Streams {
		bytes += s.Bytes
	}
	return bytes
}

func fileName(stream string) string { return stream + ".snapshot" }

// write stores the manifest and its checksum.
func (m Manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	sum := sha256.Sum256(text)
	for name, content := range map[string][]byte{
		manifestName: text, manifestSumName: fmt.Appendf(nil, "%s  %s\n", hex.EncodeToString(sum[:]), manifestName),
	} {
		f, err := createFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		if err = errors.Join(err, f.close()); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// Verify reads the manifest of a backup and checks every file against it. The error names all that are missing or
// damaged.
func Verify(dir string) (Manifest, error) {
	m, err := readManifest(dir)
	if err != nil {
		return Manifest{}, err
	}
	var errs []error
	for _, s := range m.Streams {
		errs = append(errs, s.verify(dir))
	}
	return m, errors.Join(errs...)
}

func readManifest(dir string) (Manifest, error) {
	var m Manifest
	text, err := readSmall(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s has no %s: it is no backup, or not the whole of one", dir, manifestName)
	}
	if err != nil {
		return m, err
	}
	want, err := readSmall(filepath.Join(dir, manifestSumName))
	if err != nil {
		return m, fmt.Errorf("check %s: %w", manifestName, err)
	}
	sum := sha256.Sum256(text)
	if !bytes.HasPrefix(want, []byte(hex.EncodeToString(sum[:])+" ")) {
		return m, fmt.Errorf("%s is damaged: its SHA-256 is %x", filepath.Join(dir, manifestName), sum)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", filepath.Join(dir, manifestName), err)
	}
	if m.Format != format {
		return m, fmt.Errorf("%s is of format %d, this kanade reads %d; it was taken by kanade %s", dir, m.Format, format, m.Kanade)
	}
	for _, s := range m.Streams {
		if s.Stream == "" || strings.ContainsAny(s.Stream, `./\ `) {
			return m, fmt.Errorf("%s names a stream %q", filepath.Join(dir, manifestName), s.Stream)
		}
	}
	return m, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxManifest)
	}
	return text, err
}

func (s Stream) verify(dir string) error {
	path := filepath.Join(dir, fileName(s.Stream))
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing", path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", path, err)
	case n != s.Bytes:
		return fmt.Errorf("%s is damaged: it has %d bytes, not %d", path, n, s.Bytes)
	case hex.EncodeToString(h.Sum(nil)) != s.SHA256:
		return fmt.Errorf("%s is damaged: its SHA-256 is %x, not %s", path, h.Sum(nil), s.SHA256)
	}
	return nil
}

// file is one that is being written, with its digest and size.
type file struct {
	*os.File
	hash hash.Hash
	size int64
}

// createFile makes a file, or empties it, for its owner alone: a backup holds scripts and their outputs.
func createFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{File: f, hash: sha256.New()}, nil
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.hash.Write(p[:n])
	f.size += int64(n)
	return n, err
}

func (f *file) sum() string { return hex.EncodeToString(f.hash.Sum(nil)) }

// close writes the file to the disk for good.
func (f *file) close() error { return errors.Join(f.Sync(), f.File.Close()) }
