package backup_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/backup"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
)

// filled is a system whose log holds 100 000 facts of 1 KiB, half of which compresses.
func filled(b *testing.B) *bus.Bus {
	b.Helper()
	c := bustest.Connect(b, bustest.Broker(b))
	body := make([]byte, 1024)
	r := rand.NewChaCha8([32]byte{1})
	for i := range 100_000 {
		_, _ = r.Read(body[:512])
		m := nats.NewMsg(fmt.Sprintf("audit.%d", i%5000))
		m.Data = append([]byte(nil), body...)
		_, err := c.JetStream().PublishMsgAsync(m)
		require.NoError(b, err)
	}
	<-c.JetStream().PublishAsyncComplete()
	return c
}

// BenchmarkBackup takes a backup of 100 000 facts; the ceiling is to write and digest files of the same size.
func BenchmarkBackup(b *testing.B) {
	c := filled(b)
	var m backup.Manifest
	dir := filepath.Join(b.TempDir(), "backup")
	for b.Loop() {
		var err error
		require.NoError(b, os.RemoveAll(dir))
		m, err = backup.Take(b.Context(), c, dir, "", bustest.Logger(b))
		require.NoError(b, err)
	}
	each := b.Elapsed() / time.Duration(b.N)
	began := time.Now()
	found, err := filepath.Glob(filepath.Join(dir, "*.snapshot"))
	require.NoError(b, err)
	for _, path := range found {
		require.NoError(b, copyFile(path, path+".copy"))
	}
	report(b, m, each, time.Since(began))
}

// BenchmarkRestore brings them back into an empty broker.
func BenchmarkRestore(b *testing.B) {
	c := filled(b)
	dir := filepath.Join(b.TempDir(), "backup")
	m, err := backup.Take(b.Context(), c, dir, "", bustest.Logger(b))
	require.NoError(b, err)
	for b.Loop() {
		b.StopTimer()
		empty := bustest.Dial(b, bustest.Broker(b))
		b.StartTimer()
		_, err := backup.Restore(b.Context(), empty, dir)
		require.NoError(b, err)
	}
	report(b, m, b.Elapsed()/time.Duration(b.N), 0)
}

func report(b *testing.B, m backup.Manifest, each, ceiling time.Duration) {
	b.Helper()
	b.ReportMetric(float64(m.Of("LOG").Messages)/each.Seconds(), "facts/s")
	b.ReportMetric(float64(m.Size())/1e6/each.Seconds(), "MB/s")
	if ceiling > 0 {
		b.ReportMetric(ceiling.Seconds()/each.Seconds(), "of-ceiling")
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(io.MultiWriter(out, sha256.New()), in); err != nil {
		return err
	}
	return out.Sync()
}
