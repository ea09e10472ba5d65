package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates of tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue writes a certificate with its key and the CA's into dir.
func (a *authority) issue(t testing.TB, dir string, change func(*x509.Certificate)) *TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := &TLSFiles{Cert: filepath.Join(dir, "node.crt"), Key: filepath.Join(dir, "node.key"), CA: filepath.Join(dir, "ca.crt")}
	place(t, files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	place(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	place(t, files.CA, a.pem)
	return files
}

// place replaces a file as those do who rotate certificates.
func place(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func withTLS(files *TLSFiles) func(*Config) { return func(c *Config) { c.TLS = files } }

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	uri := func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "forebay", Host: "g", Path: "/n_2"}}
		c.DNSNames = []string{"elsewhere"}
	}
	n1 := openHub(t, "n1", withTLS(ca.issue(t, t.TempDir(), named("other", "N1"))))
	n2 := openHub(t, "n_2", withTLS(ca.issue(t, t.TempDir(), uri)))
	acquaint(n1, n2)
	await(t, "they are reachable", func() bool { return n1.status("n_2").Reachable && n2.status("n1").Reachable })
	if n := len(n1.Strangers()) + len(n2.Strangers()); n != 0 {
		t.Errorf("strangers %+v %+v", n1.Strangers(), n2.Strangers())
	}
}

// Whoever's certificate is no good is refused from both sides, in words on both.
func TestCertificatesThatAreNoGood(t *testing.T) {
	ca := newAuthority(t)
	good := func(t *testing.T) *TLSFiles { return ca.issue(t, t.TempDir(), named("n2")) }
	for _, tc := range []struct {
		name  string
		files func(*testing.T) *TLSFiles
		code  Code
		words string
		// back is what n2 finds amiss itself; "" is that n1 finds the same.
		back string
	}{
		{name: "a name of another node", code: CodeName, words: `the certificate of n2 names n3: it needs the DNS name "n2" or the URI "forebay://g/n2"`, files: func(t *testing.T) *TLSFiles {
			return ca.issue(t, t.TempDir(), named("n3"))
		}},
		{name: "a wildcard", code: CodeName, words: `the certificate of n2 names *`, files: func(t *testing.T) *TLSFiles {
			return ca.issue(t, t.TempDir(), named("*"))
		}},
		{name: "no names", code: CodeName, words: `the certificate of n2 names nobody`, files: func(t *testing.T) *TLSFiles {
			return ca.issue(t, t.TempDir(), named())
		}},
		{name: "the URI of another gateway", code: CodeName, words: `names forebay://other/n2`, files: func(t *testing.T) *TLSFiles {
			return ca.issue(t, t.TempDir(), func(c *x509.Certificate) {
				c.URIs = []*url.URL{{Scheme: "forebay", Host: "other", Path: "/n2"}}
			})
		}},
		{name: "signed by another CA", code: CodeTLS, words: "its certificate (CN=node, serial", files: func(t *testing.T) *TLSFiles {
			files := good(t)
			foreign := newAuthority(t).issue(t, t.TempDir(), named("n2"))
			return &TLSFiles{Cert: foreign.Cert, Key: foreign.Key, CA: files.CA}
		}},
		{name: "trusting another CA", code: CodeTLS, words: "its certificate (CN=node, serial", files: func(t *testing.T) *TLSFiles {
			files := good(t)
			place(t, files.CA, newAuthority(t).pem)
			return files
		}},
		{name: "expired", code: CodeTLS, words: "its certificate (CN=node, serial", files: func(t *testing.T) *TLSFiles {
			return ca.issue(t, t.TempDir(), func(c *x509.Certificate) {
				c.DNSNames, c.NotAfter = []string{"n2"}, time.Now().Add(-time.Minute)
			})
		}},
		{name: "for servers only", code: CodeTLS, words: "incompatible key usage", files: func(t *testing.T) *TLSFiles {
			return ca.issue(t, t.TempDir(), func(c *x509.Certificate) {
				c.DNSNames, c.ExtKeyUsage = []string{"n2"}, c.ExtKeyUsage[:1]
			})
		}},
		{name: "no TLS", code: CodeTLS, words: "TLS", files: func(*testing.T) *TLSFiles { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n1 := openHub(t, "n1", withTLS(ca.issue(t, t.TempDir(), named("n1"))))
			n2 := openHub(t, "n2", withTLS(tc.files(t)))
			n2.SetPeer("n1", n1.Addr().String())
			n1.SetPeer("n2", "127.0.0.1:1") // so that n2 is known
			await(t, "n2 knows why", func() bool { r := n2.status("n1").Refusal; return r != nil })
			await(t, "n1 says why", func() bool { return n1.log.count("peer refused", "reason="+tc.code.String()) > 0 })
			if r := n2.status("n1").Refusal; r.Code != tc.code {
				t.Errorf("n2 knows %+v, want %s", r, tc.code)
			}
			mustFail(t, n2.status("n1").Refusal, tc.words)
			await(t, "n2 tries again", func() bool { return n1.Strangers()[0].Times > 2 })
			if n := n1.log.count("peer refused"); n != 1 {
				t.Errorf("n1 says it %d times:\n%s", n, n1.log)
			}
		})
	}
}

// The other direction: who has TLS calls who has not.
func TestTLSMeetsNone(t *testing.T) {
	n1 := openHub(t, "n1", withTLS(newAuthority(t).issue(t, t.TempDir(), named("n1"))))
	n2 := openHub(t, "n2", nil)
	n1.SetPeer("n2", n2.Addr().String())
	await(t, "n1 knows why", func() bool { r := n1.status("n2").Refusal; return r != nil && r.Code == CodeTLS })
	mustFail(t, n1.status("n2").Refusal, "it speaks no TLS")
	await(t, "n2 noticed", func() bool { return n2.log.count("came to nothing") == 1 })
}

func TestCertificatesAreSwappedWithoutRestart(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	files := ca.issue(t, dir, named("n3"))
	n1 := openHub(t, "n1", withTLS(ca.issue(t, t.TempDir(), named("n1"))))
	n2 := openHub(t, "n2", withTLS(files))
	acquaint(n1, n2)
	await(t, "it is refused", func() bool { r := n2.status("n1").Refusal; return r != nil && r.Code == CodeName })

	ca.issue(t, dir, named("n2"))
	await(t, "it is welcome", func() bool { return n2.status("n1").Reachable && n1.status("n2").Reachable })

	// A pair that does not load changes nothing, and is said once.
	place(t, files.Key, []byte("rubbish"))
	await(t, "it is said", func() bool { return n2.log.count("the new certificates cannot be used", "node.key") == 1 })
	since := n1.status("n2").Contact
	await(t, "it goes on", func() bool { return n1.status("n2").Contact.Sub(since) > 200*time.Millisecond })
	if !n2.status("n1").Reachable {
		t.Errorf("status %+v", n2.status("n1"))
	}
	if n := n2.log.count("the new certificates cannot be used"); n != 1 {
		t.Errorf("said %d times:\n%s", n, n2.log)
	}
	if err := os.Remove(files.CA); err != nil {
		t.Fatal(err)
	}
	await(t, "that is said too", func() bool { return n2.log.count("the new certificates cannot be used", "ca.crt") == 1 })

	since = n1.status("n2").Contact
	await(t, "it goes on", func() bool { return n1.status("n2").Contact.Sub(since) > 200*time.Millisecond })
	if n := n2.log.count("the new certificates cannot be used", "ca.crt"); n != 1 {
		t.Errorf("that is said %d times:\n%s", n, n2.log)
	}

	// The CA is changed on both: who has only one of them is refused meanwhile.
	other := newAuthority(t)
	other.issue(t, dir, named("n2"))
	await(t, "it is not trusted", func() bool { r := n2.status("n1").Refusal; return r != nil && r.Code == CodeTLS })
	other.issue(t, filepath.Dir(n1.cfg.TLS.CA), named("n1"))
	await(t, "it is welcome again", func() bool { return n2.status("n1").Reachable && n1.status("n2").Reachable })
}

func TestCertificatesMustBeInOrderAtFirst(t *testing.T) {
	ca := newAuthority(t)
	for name, tc := range map[string]struct {
		spoil func(*TLSFiles)
		want  string
	}{
		"no certificate": {func(f *TLSFiles) { f.Cert += "x" }, "node.crtx"},
		"a wrong key": {func(f *TLSFiles) {
			f.Key = ca.issue(t, t.TempDir(), named("n1")).Key
		}, "reading the certificate"},
		"an empty CA": {func(f *TLSFiles) { place(t, f.CA, nil) }, "there is none in it"},
	} {
		t.Run(name, func(t *testing.T) {
			files := ca.issue(t, t.TempDir(), named("n1"))
			tc.spoil(files)
			l := listen(t)
			defer l.Close()
			_, err := Open(Config{
				ID: Identity{"n1", [16]byte{1}}, Gateway: "g", Listener: l, TLS: files,
				Describe: func() Description { return Description{} },
			})
			mustFail(t, err, tc.want)
		})
	}
}
