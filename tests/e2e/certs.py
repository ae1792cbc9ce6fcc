"""A test authority and the three server certificates the TLS tests need, made by openssl."""

import ssl
import subprocess


class Certificates:
    def __init__(self, directory):
        directory.mkdir()
        self.directory = directory
        self.ca = directory / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
                      "-subj", "/CN=test authority",
                      "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        (directory / "serial").write_text("01\n")
        (directory / "index").write_text("")
        (directory / "ca.conf").write_text(
            "[ca]\ndefault_ca=test\n[test]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
            "certificate=ca.pem\nprivate_key=ca.key\ndefault_md=sha256\npolicy=any\n"
            "unique_subject=no\ncopy_extensions=copy\n[any]\ncommonName=supplied\n")
        self._issue("good", "DNS:localhost,IP:127.0.0.1", "20200101000000Z", "20991231000000Z")
        self._issue("expired", "DNS:localhost,IP:127.0.0.1", "20200101000000Z", "20210101000000Z")
        self._issue("wrong-name", "DNS:elsewhere.test", "20200101000000Z", "20991231000000Z")

    def _openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def _issue(self, name, names, since, until):
        self._openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                      "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}")
        self._openssl("ca", "-batch", "-notext", "-config", "ca.conf", "-in", f"{name}.csr",
                      "-out", f"{name}.pem", "-startdate", since, "-enddate", until)

    def server_context(self, name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return context
