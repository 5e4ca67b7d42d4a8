package capture

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
	"kanade/services/agent/internal/domain"
)

// stream is a text of n bytes in which every line is another one.
func stream(n int) []byte {
	const line = 128
	b := make([]byte, n)
	for i := 0; i < n; i += line {
		copy(b[i:], fmt.Sprintf("%0*d\n", line-1, i/line))
	}
	return b
}

func TestKeepsHeadAndTail(t *testing.T) {
	all := stream(20 << 20)
	const most = fileHead + fileRing
	for _, n := range []int{
		0, 1, events.MaxInlineOutput - 1, events.MaxInlineOutput, events.MaxInlineOutput + 1, 2 * events.MaxInlineOutput,
		fileHead - 1, fileHead, fileHead + 1, most - 1, most, most + 1, most + fileRing - 1, most + fileRing, 20 << 20,
	} {
		for _, chunk := range []int{8 << 10, 200 << 10, 40 << 20} {
			if n > events.MaxObjectOutput/4 && chunk < 64<<10 {
				continue
			}
			want := all[:n]
			c := New(filepath.Join(t.TempDir(), "out"))
			r := rand.New(rand.NewPCG(uint64(n), uint64(chunk)))
			for rest := want; len(rest) > 0; {
				k := min(len(rest), 1+r.IntN(chunk))
				_, err := c.Write(rest[:k])
				require.NoError(t, err)
				rest = rest[k:]
			}
			out, upload, err := c.Close("id/stdout")
			require.NoError(t, err)
			require.EqualValues(t, n, out.Bytes)
			if n <= events.MaxInlineOutput {
				require.Equal(t, string(want), out.Text)
				require.Nil(t, upload)
				require.False(t, out.Truncated)
				continue
			}
			require.True(t, out.Truncated)
			require.LessOrEqual(t, len(out.Text), events.MaxInlineOutput)
			head, tail, found := strings.Cut(out.Text, "\n[... ")
			require.True(t, found)
			require.True(t, bytes.HasPrefix(want, []byte(head)))
			require.True(t, bytes.HasSuffix(want, []byte(tail[strings.Index(tail, "...]\n")+5:])))

			got, err := os.ReadFile(upload.File)
			require.NoError(t, err)
			if n > most {
				cut := append([]byte{}, want[:fileHead]...)
				cut = append(cut, domain.CutMark(int64(n-most))...)
				want = append(cut, want[n-fileRing:]...)
			}
			require.LessOrEqual(t, len(got), events.MaxObjectOutput)
			require.True(t, bytes.Equal(want, got), "%d bytes in pieces of %d", n, chunk)
			sum := sha256.Sum256(got)
			require.Equal(t, hex.EncodeToString(sum[:]), out.SHA256)
		}
	}
}

func TestBytesThatAreNoText(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "out"))
	_, _ = c.Write([]byte("ok \xff\xfe end"))
	out, upload, err := c.Close("id/stdout")
	require.NoError(t, err)
	require.Nil(t, upload)
	require.Equal(t, "ok \ufffd end", out.Text)

	// As replacements they take more room than they had.
	raw := bytes.Repeat([]byte("a\xff"), events.MaxInlineOutput/2)
	c = New(filepath.Join(t.TempDir(), "out"))
	_, _ = c.Write(raw)
	out, upload, err = c.Close("id/stdout")
	require.NoError(t, err)
	require.True(t, out.Truncated)
	require.LessOrEqual(t, len(out.Text), events.MaxInlineOutput)
	require.True(t, utf8.ValidString(out.Text))
	got, err := os.ReadFile(upload.File)
	require.NoError(t, err)
	require.Equal(t, raw, got)
}

// A disk that takes nothing costs the object; the script goes on and its result says what fits.
func TestDiskRefuses(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "no", "such", "directory"))
	want := stream(1 << 20)
	n, err := c.Write(want)
	require.NoError(t, err)
	require.Equal(t, len(want), n)
	out, upload, err := c.Close("id/stdout")
	require.Error(t, err)
	require.Nil(t, upload)
	require.True(t, out.Truncated)
	require.Empty(t, out.Object)
	require.EqualValues(t, 1<<20, out.Bytes)
}
