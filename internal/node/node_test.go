package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/wal"
)

func TestOneLineAtTheStartAndOneAtTheEnd(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("files", 10)
	r.stop()
	start := r.logs.lines("forebay starts")
	if len(start) != 1 || len(r.logs.lines("forebay starts", "version="+Version, "gateway=forebay", "node=n1",
		"data_dir="+p.path("data"), "config="+p.path("forebay.toml"), `sinks="files (file)"`)) != 1 {
		t.Errorf("the first line is %q", start)
	}
	end := r.logs.lines("forebay ends")
	if len(end) != 1 || len(r.logs.lines("forebay ends", `reason="told to stop"`, "ran=")) != 1 {
		t.Errorf("the last line is %q", end)
	}
	if text := strings.TrimSpace(r.logs.String()); !strings.HasSuffix(text, strings.TrimSpace(end[0])) {
		t.Error("the last line is not the last")
	}
	p.wantValues("files", numbers(0, 10))
}

func TestAnAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newPlace(t, nil, "clicks")
	f := p.config()
	f.Node.HTTP = l.Addr().String()
	p.machine.serveWait = 150 * time.Millisecond
	var said logs
	n := newNode(Options{Config: f, Logger: slog.New(slog.NewTextHandler(&said, nil)), Stdout: p.stdout}, p.machine)
	err = n.run(t.Context())
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), l.Addr().String()) || strings.Contains(err.Error(), "data directory") {
		t.Errorf("got %v, want ErrInUse with the address alone", err)
	}
	if got := said.lines("level=WARN", "waiting: another process has the address", l.Addr().String(), "at_most=150ms"); len(got) != 1 {
		t.Errorf("the wait is said %d times in %s", len(got), &said)
	}
	holder, err := openDataDir(t.Context(), p.path("data"), "n1", "forebay", turn{})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.close()
	if err := n.run(t.Context()); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), p.path("data")+" is in use, too") {
		t.Errorf("got %v, want ErrInUse with the data directory", err)
	}
}

func TestALogInUse(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	r := p.start()
	r.awaitLead()
	r.stop()
	log, err := wal.Open(wal.Config{Dir: p.path("data/lanes/0"), Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	if err := p.mustFail("in use", p.path("data/lanes/0")); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

// TestHTTPSpeaksForTheNode, over TLS when it has a certificate: what the handlers
// say is tested where they are.
func TestHTTPSpeaksForTheNode(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.node = fmt.Sprintf("tls = { cert = %q, key = %q }", p.path("node.crt"), p.path("node.key"))
	authority := certificate(t, p.path("node.crt"), p.path("node.key"))
	r := p.up()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for path, words := range map[string]string{
		"/-/healthy": "healthy", "/-/ready": `"ready":true`, "/api/v1/status": `"gateway":"forebay"`,
		"/metrics": `forebay_build_info{version="` + Version + `"} 1`, "/api/v1/config": "[sinks.files.file]",
	} {
		answer, err := client.Get("https://" + r.address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(body), words) {
			t.Errorf("%s: %s, %v\n%s", path, answer.Status, err, body)
		}
	}
	r.stop()
	if conn, err := net.Dial("tcp", r.address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the stop: %v, %v", conn, err)
	}
}

// certificate writes a certificate for loopback that signs itself, and its key.
func certificate(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(cert, text, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}
