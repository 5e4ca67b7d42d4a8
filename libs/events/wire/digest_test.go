package wire

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestDigestForms(t *testing.T) {
	const padded = "SHA-256=I3PoGrx0PLdu6C0Vfmsb7ej_poGfBx_vjHf60pyggkQ="
	d, err := ParseDigest(padded)
	if err != nil {
		t.Fatal(err)
	}
	if bare, err := ParseDigest(strings.TrimSuffix(padded, "=")); err != nil || bare != d {
		t.Errorf("without padding: %x, %v", bare, err)
	}
	if got := FormatDigest(d); got != padded {
		t.Errorf("%s", got)
	}
	const hexed = "2373e81abc743cb76ee82d157e6b1bede8ffa6819f071fef8c77fad29ca08244"
	if got := HexDigest(d); got != hexed {
		t.Errorf("%s", got)
	}
	for _, text := range []string{hexed, strings.ToUpper(hexed)} {
		if got, err := ParseHexDigest(text); err != nil || got != d {
			t.Errorf("%s: %x, %v", text, got, err)
		}
	}
	if got, err := ParseDigest(FormatDigest(sha256.Sum256(nil))); err != nil || got != sha256.Sum256(nil) {
		t.Errorf("%x, %v", got, err)
	}
}

func TestWhatIsNoDigestIsRefused(t *testing.T) {
	const body = "I3PoGrx0PLdu6C0Vfmsb7ej_poGfBx_vjHf60pyggkQ"
	for _, text := range []string{
		"", body, "sha-256=" + body, "SHA-256=", "SHA-256=" + body + "==", "SHA-256=" + body[1:], "SHA-256=" + body + "A",
		"SHA-256=" + strings.ReplaceAll(body, "_", "/"), "SHA-256=\n" + body, "SHA-256=" + body[:42] + "\n", "SHA-256=" + body[:42] + "R",
		"SHA-512=" + body,
	} {
		if d, err := ParseDigest(text); err == nil {
			t.Errorf("%q is %x", text, d)
		}
	}
	for _, text := range []string{"", "23", strings.Repeat("g", 64), strings.Repeat("0", 65), strings.Repeat("0", 66)} {
		if d, err := ParseHexDigest(text); err == nil {
			t.Errorf("%q is %x", text, d)
		}
	}
}
