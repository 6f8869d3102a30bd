// Show the partitions of a disk without downloading it, with Node.js: node partitions.mjs URL
// NODE_EXTRA_CA_CERTS=ca.pem lets Node.js trust a server whose authority it does not know.

const [url] = process.argv.slice(2);

async function read(offset, length) {
  const response = await fetch(url, { headers: { range: `bytes=${offset}-${offset + length - 1}` } });
  if (response.status !== 206) {
    throw new Error(`${response.status}: ${await response.text()}`);
  }
  return Buffer.from(await response.arrayBuffer());
}

const SECTOR = 512;
const header = await read(SECTOR, SECTOR);
if (header.toString("latin1", 0, 8) !== "EFI PART") {
  console.log("The disk has no GUID partition table");
} else {
  const [first, count, size] = [Number(header.readBigUInt64LE(72)), header.readUInt32LE(80), header.readUInt32LE(84)];
  const table = await read(first * SECTOR, count * size);
  for (let entry = 0; entry < count; entry++) {
    const item = table.subarray(entry * size, (entry + 1) * size);
    if (item.subarray(0, 16).some((byte) => byte !== 0)) {
      const [start, end] = [item.readBigUInt64LE(32), item.readBigUInt64LE(40)];
      const name = item.toString("utf16le", 56, 128).replace(/\0+$/, "");
      console.log(`${entry + 1}: sectors ${start} to ${end} ${name}`);
    }
  }
}
